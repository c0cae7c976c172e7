"""`aae-job verify-resume`: proves exact resume with the present settings on this machine."""

from job.commandline import Parser, count
from job.config.flags import add_settings, read_configuration_from
from job.data.datasets import check_dataset
from job.errors import EXIT_FINISHED
from job.loading import loading


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

    with loading():
        from job.proofs.exactness import prove, table
        from job.proofs.folder import working_folder

    with working_folder(settings.runs_dir, "verify-resume") as folder:
        folder.stays = True  # also where a run fails by itself
        proof = prove(settings, options.kills, folder.path, print)
        equal = not proof.differences
        folder.stays = not equal
        print("\n".join(table(proof)))
        print("equal byte for byte" if equal else f"the runs are kept in {folder.path}")
    return EXIT_FINISHED if equal else 1
