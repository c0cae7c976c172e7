"""`aae-job sample`: decodes a lattice or prior samples from a run's newest weights into a PNG."""

from pathlib import Path

from job.commandline import Parser, add_run, count, positive
from job.errors import EXIT_FINISHED, UsageError
from job.rundir.directory import RunDir


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job sample",
        "Decodes a lattice, or with --random N prior samples, from a run's newest weights into a PNG.",
        "aae-job sample digits-2d-seed0-44136fa3 --random 100 --out samples.png",
    )
    add_run(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.png", help="where to write the picture")
    parser.add_argument("--random", type=count, metavar="N", help="decode N samples of the prior instead of a lattice")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the prior samples [0]")
    parser.add_argument("--size", type=count, metavar="N", help="codes on each side of the lattice [the run's]")
    parser.add_argument(
        "--extent", type=positive, metavar="X", help="outermost coordinate of a `unit` lattice [the run's]"
    )
    parser.add_argument(
        "--mode", choices=("unit", "quantile"), help="even steps, or equal prior mass a cell [the run's]"
    )
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"--out {options.out}: there is no folder {options.out.absolute().parent}")

    if options.extent is not None and options.mode == "quantile":
        raise UsageError(
            f"--extent {options.extent}: a `quantile` lattice covers the whole prior; leave one of the two out"
        )
    mode = "unit" if options.extent is not None else options.mode

    from job.results.samples import random_samples, sample_lattice
    from job.results.weights import newest_weights

    weights = newest_weights(run_dir)
    if options.random is not None:
        content, what = random_samples(weights, options.random, options.seed), f"{options.random} prior samples"
    else:
        content, what = sample_lattice(weights, size=options.size, extent=options.extent, mode=mode), "lattice"
    try:
        options.out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--out {options.out} cannot be written: {error}") from error
    print(f"{what} of step {weights.step:,}: {options.out}")
    return EXIT_FINISHED
