"""`aae-job encode`: the codes of images, by a run's newest weights."""

from job.commandline import Parser, add_run, path
from job.errors import EXIT_FINISHED, UsageError
from job.loading import loading
from job.results.destination import destination
from job.rundir.directory import RunDir

MOSTLY_INK = 127  # a mean pixel above this is of dark ink on white; of the data sets it is 33 to 73


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job encode",
        "Writes the codes of a run's data set, or of images of one's own, by its newest weights. FILE.npz holds codes (N, Z)\n"
        "float32, indices (N), split (N; 'train', 'held-out' or 'own') and, of the data set, labels (N).",
        "aae-job encode digits-2d-seed0-44136fa3 --out codes.npz",
    )
    add_run(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="where to write the codes")
    parser.add_argument(
        "--images",
        type=path,
        metavar="FROM",
        help="a .npz with `images` (N, 28, 28) uint8, or a folder of PNG files, 28 x 28, 8-bit grey, taken in the order of "
        "their names; 255 is ink, as in the data sets [the run's data set]",
    )
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run
    out = destination(options.out, ".npz")
    if options.images is not None and options.images.resolve() == out.path:
        raise UsageError(f"--out {options.out} would replace the images; name another file")

    with loading():
        from job.data.own_images import read_own_images
        from job.results.codes import codes_of_data_set, codes_of_own
        from job.results.npz import write_npz
        from job.results.weights import weights_at_work

    weights = weights_at_work(run_dir)
    if options.images is None:
        arrays = codes_of_data_set(weights)
    else:
        pixels = read_own_images(options.images)
        if pixels.numpy().mean() > MOSTLY_INK:
            print(
                f"note: {options.images} is light, as of dark ink on white; the encoder knows white ink on black, 255 = ink"
            )
        arrays = codes_of_own(weights, pixels)
    with out.file() as file:
        write_npz(file, arrays)
    print(f"{len(arrays['codes']):,} codes of step {weights.step:,}: {options.out}")
    return EXIT_FINISHED
