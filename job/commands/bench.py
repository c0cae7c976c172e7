"""`aae-job bench`: measures the lecture's loop, this project's and the hardware's floor."""

import json
import sys

from job.commandline import Parser, count
from job.config.flags import add_settings, read_configuration_from
from job.data.datasets import check_dataset
from job.errors import EXIT_FINISHED
from job.loading import loading
from job.rundir.find import find_run


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job bench",
        "Measures a training step on this machine, with new weights and with aged ones: the lecture's loop as written, the same\n"
        "with the notebook's pictures, this project's in each precision, and its matrix products alone; then the work beside\n"
        "the steps, and how long a run takes to begin and to end. On a CPU the modes take turns. Let nothing else run\n"
        "meanwhile. Works in a folder of its own below AAE_RUNS_DIR, which it removes.",
        "aae-job bench --turns 5",
    )
    parser.add_argument("--turns", type=count, default=6, metavar="N", help="turns of about a second each [6]")
    parser.add_argument(
        "--short",
        action="store_true",
        help="only the lecture's loop and that of these settings, nothing beside the steps",
    )
    parser.add_argument(
        "--from", dest="aged", type=find_run, metavar="RUN", help="take aged weights from a run's newest checkpoint"
    )
    parser.add_argument(
        "--quality",
        type=count,
        metavar="STEPS",
        help="instead: how long the run of these settings takes, and the lecture's loop for STEPS steps, and how good both are",
    )
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings.with_cpus()
    check_dataset(settings.dataset, settings.data_dir)

    with loading():
        from job.proofs.bench import as_json, measure, table
        from job.proofs.folder import working_folder
        from job.proofs.quality import measure_quality, quality_json, quality_table

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    with working_folder(settings.runs_dir, "bench") as folder:
        if options.quality is not None:
            trained = measure_quality(settings, options.quality, folder.path, tell)
            found, lines = quality_json(trained), quality_table(trained)
        else:
            result = measure(settings, options.turns, folder.path, tell, options.aged, short=options.short)
            found, lines = as_json(result), table(result)
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines))
    return EXIT_FINISHED
