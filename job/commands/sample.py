"""`aae-job sample`: decodes a lattice or prior samples from a run's newest weights."""

import time
from collections.abc import Callable

from job.commandline import Parser, add_run, count, number_between, positive
from job.errors import EXIT_FINISHED, UsageError
from job.loading import loading
from job.results.destination import FOLDER, destination
from job.rundir.directory import RunDir

# What people look at, what a shared disk takes, and what is meant.
MOST = {".png": 10_000, FOLDER: 100_000, ".npz": 10**9}
FILE_BYTES = 4096  # what a small one takes on most disks
TOLD_EVERY_S = 10.0


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    run_dir: RunDir = options.run
    out = destination(options.out, ".png", ".npz", FOLDER)
    if options.random is None and out.kind != ".png":
        raise UsageError(f"--out {options.out}: a lattice is a FILE.png; what else it may be is for --random N samples")
    if options.random is not None and options.random > MOST[out.kind]:
        what = "a picture" if out.kind == ".png" else "a folder"
        raise UsageError(
            f"--random {options.random}: {what} holds at most {MOST[out.kind]:,}; --out FILE.npz takes more"
        )
    if options.random is not None and (options.size, options.extent, options.mode) != (None, None, None):
        raise UsageError("--size, --extent and --mode are a lattice's; leave them out, or --random")
    if options.extent is not None and options.mode == "quantile":
        raise UsageError(
            f"--extent {options.extent}: a `quantile` lattice covers the whole prior; leave one of the two out"
        )
    mode = "unit" if options.extent is not None else options.mode

    with loading():
        from job.results.npz import write_npz
        from job.results.samples import PriorSamples, sample_lattice
        from job.results.weights import weights_at_work

    weights = weights_at_work(run_dir)
    what = "lattice" if options.random is None else f"{options.random:,} prior samples"
    samples = PriorSamples(weights, options.random or 0, options.seed, _progress(options.random))
    if out.kind == ".npz":
        arrays = samples.arrays()
        out.check_room(sum(array.nbytes for array in arrays.values()))
        with out.file() as file:
            write_npz(file, arrays)
    elif out.kind == FOLDER:
        out.check_room(options.random * FILE_BYTES)
        with out.folder() as folder:
            samples.write_into(folder)
    else:
        changes = {"size": options.size, "extent": options.extent, "mode": mode}
        content = samples.png() if options.random is not None else sample_lattice(weights, **changes)
        with out.file() as file:
            file.write(content)
    print(f"{what} of step {weights.step:,}: {options.out}")
    return EXIT_FINISHED


def _parser() -> Parser:
    parser = Parser(
        "aae-job sample",
        "Decodes a lattice, or with --random N prior samples, from a run's newest weights into a PNG. Samples also go into a\n"
        ".npz (images (N, 28, 28) uint8, 255 = ink; codes (N, Z) float32; seed; step) or a folder of PNG files (255 = ink).",
        "aae-job sample digits-2d-seed0-44136fa3 --random 100 --out samples.png",
    )
    add_run(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        help="FILE.png; with --random also FILE.npz, or a new folder such as samples/",
    )
    parser.add_argument(
        "--random",
        type=number_between(1, MOST[".npz"]),
        metavar="N",
        help="decode N samples of the prior instead of a lattice; the first ones are the same whatever N",
    )
    parser.add_argument(
        "--seed", type=number_between(0, 2**63 - 1), default=0, metavar="S", help="seed of the prior samples [0]"
    )
    parser.add_argument("--size", type=count, metavar="N", help="codes on each side of the lattice [the run's]")
    parser.add_argument(
        "--extent", type=positive, metavar="X", help="outermost coordinate of a `unit` lattice [the run's]"
    )
    parser.add_argument(
        "--mode", choices=("unit", "quantile"), help="even steps, or equal prior mass a cell [the run's]"
    )
    return parser


def _progress(total: int | None) -> Callable[[int], None]:
    """What tells now and then how many of many samples are done."""
    next_s = time.monotonic() + TOLD_EVERY_S

    def tell(done: int) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + TOLD_EVERY_S
            print(f"{done:,} of {total:,} samples")

    return tell
