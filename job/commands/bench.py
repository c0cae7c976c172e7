"""`aae-job bench`: measures the lecture's loop, this project's and the hardware's floor."""

import json
import sys

from job.commandline import Parser, count
from job.config.flags import add_settings, read_configuration_from
from job.data.datasets import check_dataset
from job.errors import EXIT_FINISHED


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job bench",
        "Measures a training step on this machine: the lecture's loop as written, the same with the notebook's pictures, this\n"
        "project's in each precision, and its matrix products alone. They take turns, each in a process of its own. Let nothing\n"
        "else run meanwhile. Writes nothing.",
        "aae-job bench --turns 10",
    )
    parser.add_argument("--turns", type=count, default=10, metavar="N", help="turns of about a second each [10]")
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings.with_cpus()
    check_dataset(settings.dataset, settings.data_dir)

    from job.proofs.bench import as_json, measure, table

    result = measure(settings, options.turns, lambda line: print(line, file=sys.stderr))
    print(json.dumps(as_json(result), indent=1) if options.json else "\n".join(table(result)))
    return EXIT_FINISHED
