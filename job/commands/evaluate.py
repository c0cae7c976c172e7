"""`aae-job evaluate`: measures a run's newest weights on held-out data."""

from job.commandline import Parser, add_run
from job.errors import EXIT_FINISHED
from job.loading import loading
from job.rundir.directory import RunDir


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job evaluate",
        "Measures a run's newest weights on all held-out images: reconstruction, distance of the codes from the prior, what\n"
        "the codes know of the classes, balance of the classes in samples. Prints, and writes evaluations/step-....json.",
        "aae-job evaluate digits-2d-seed0-44136fa3",
    )
    add_run(parser)
    parser.add_argument(
        "--parzen", action="store_true", help="estimate the log-likelihood too, by the paper's protocol"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON that is written")
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run

    with loading():
        from job.evaluation.measures import encoded
        from job.evaluation.scores import evaluate_run, lines_of

    settings, found = evaluate_run(run_dir, parzen=options.parzen)
    if options.json:
        print(encoded(found).decode(), end="")
    else:
        print("\n".join([*lines_of(settings, found), f"  written            {run_dir.evaluation_file(found['step'])}"]))
    return EXIT_FINISHED
