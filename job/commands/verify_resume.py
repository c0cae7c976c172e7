"""`aae-job verify-resume`: proves exact resume with the present settings on this machine."""

import shutil
import tempfile
from pathlib import Path

from job.commandline import Parser, count
from job.config.flags import add_settings, read_configuration_from
from job.data.datasets import check_dataset
from job.errors import EXIT_FINISHED, UsageError


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job verify-resume",
        "Trains the run that the settings describe once through, then again with N interruptions at random moments: random\n"
        "signals, half of them SIGKILL, a process that stands still, a terminal that hangs up, pages and ends of files that a\n"
        "power cut takes. Compares weights, lattices and losses byte for byte. Works in a folder of its own below\n"
        "AAE_RUNS_DIR, which it removes unless something differs.\n"
        "Exit code 0: equal; 1: something differs.",
        "AAE_MAX_STEPS=300 AAE_CHECKPOINT_EVERY_STEPS=50 aae-job verify-resume --kills 5",
    )
    parser.add_argument("--kills", type=count, default=10, metavar="N", help="interruptions to make [10]")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings.with_cpus()
    check_dataset(settings.dataset, settings.data_dir)

    from job.proofs.exactness import prove, table

    try:
        settings.runs_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=settings.runs_dir))
    except OSError as error:
        raise UsageError(
            f"AAE_RUNS_DIR={settings.runs_dir} cannot be written: {error}; set it to another folder"
        ) from error
    equal = False
    try:
        proof = prove(settings, options.kills, folder, print)
        equal = not proof.differences
        print("\n".join(table(proof)))
        print("equal byte for byte" if equal else f"the runs are kept in {folder}")
    finally:
        if equal:
            shutil.rmtree(folder, ignore_errors=True)
    return EXIT_FINISHED if equal else 1
