"""What one carries away: samples in bulk, codes of images, and files that are whole or not there."""

import io
import os
import resource
import signal
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.lib import format as npy
from PIL import Image

from aae.blocks import ROWS, decode, encode
from aae.networks import AdversarialAutoencoder
from job.__main__ import main
from job.checkpoints.checkpoint import save_checkpoint
from job.config.settings import Settings
from job.config.sources import read_configuration
from job.data.images import load_images
from job.errors import AaeError, UsageError
from job.results.destination import FOLDER, destination
from job.results.npz import Array, Streamed, write_npz
from job.results.samples import PriorSamples
from job.results.weights import Weights, encode_weights
from job.rundir.directory import RunDir
from job.rundir.small_file import names_in
from job.segment.plan import plan_start


def _weights(latent_dim: int = 3, hidden_dim: int = 16) -> Weights:
    torch.manual_seed(0)
    settings = Settings(latent_dim=latent_dim, hidden_dim=hidden_dim, prior_std=2.0)
    return Weights(AdversarialAutoencoder(latent_dim, hidden_dim), 7, settings)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a finished run `small` under runs/: all that is read of it are its settings and weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("AAE_RUNS_DIR", str(tmp_path / "runs"))
    run = {"AAE_RUN_NAME": "small", "AAE_LATENT_DIM": "3", "AAE_HIDDEN_DIM": "16", "AAE_PRIOR_STD": "2.0"}
    plan = plan_start(read_configuration(environment={"AAE_RUNS_DIR": str(tmp_path / "runs"), **run}))
    plan.run_dir.final.mkdir(parents=True)
    plan.record.write(plan.run_dir)
    plan.run_dir.final_weights.write_bytes(encode_weights(_weights().model, plan.settings, 7))
    return tmp_path


def _forms(arrays: dict[str, Array]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def _load(path: Path | str) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def test_what_a_row_becomes_does_not_depend_on_how_many_there_are() -> None:
    """Products of another shape round otherwise; and neither the mode nor the random state is touched."""
    model = _weights(hidden_dim=1000).model
    state = torch.get_rng_state()
    codes, pixels = torch.linspace(-2, 2, 3 * ROWS).view(-1, 3), torch.arange(ROWS * 784).view(-1, 784).to(torch.uint8)
    ink, found = decode(model.decoder, codes), encode(model.encoder, pixels)
    for num in (1, 7, 13):
        assert torch.equal(decode(model.decoder, codes[:num]), ink[:num])
        assert torch.equal(encode(model.encoder, pixels[:num]), found[:num])
    assert torch.equal(state, torch.get_rng_state())
    assert model.encoder.training
    assert model.decoder.training


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    """Five, or two thousand and five: the first five are the same; another seed gives others; the spread is the prior's."""
    weights = _weights()
    many = [
        np.concatenate(list(part))
        for part in (PriorSamples(weights, 2005, 1).images(), PriorSamples(weights, 2005, 1).codes())
    ]
    few = PriorSamples(weights, 5, 1)
    assert np.array_equal(np.concatenate(list(few.images())), many[0][:5])
    assert np.array_equal(np.concatenate(list(few.codes())), many[1][:5])
    assert not np.array_equal(np.concatenate(list(PriorSamples(weights, 5, 2).codes())), many[1][:5])
    assert (many[0].shape, many[1].shape) == ((2005, 28, 28), (2005, 3))
    assert abs(many[1].std() - 2) < 0.1
    assert len(np.unique(many[1])) > 6000  # no block is like another


def test_an_array_is_in_its_file_before_the_next_part_of_it_is_made() -> None:
    """So memory does not grow with what is written; numpy reads it, no time is in it."""
    file = io.BytesIO()
    sizes = []

    def blocks() -> Iterator[Array]:
        for number in range(5):
            sizes.append(file.tell())
            yield np.full((100, 28), number, np.uint8)

    write_npz(file, {"images": Streamed((500, 28), np.dtype(np.uint8), blocks()), "word": np.array("ä")})
    assert np.diff(sizes).tolist() == [2800] * 4
    with zipfile.ZipFile(file) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    file.seek(0)
    arrays = np.load(file)
    assert np.array_equal(arrays["images"], np.repeat(np.arange(5, dtype=np.uint8), 100)[:, None].repeat(28, 1))
    assert arrays["word"] == "ä"


def test_samples_are_the_same_as_arrays_as_files_and_in_a_picture(folder: Path) -> None:
    """Twice the same bytes; each PNG is its image; what is encoded again is the same from either."""
    for name in ("a.npz", "b.npz", "png/", "picture.png"):
        assert main(["sample", "small", "--random", "12", "--seed", "3", "--out", name]) == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    arrays = _load("a.npz")
    assert _forms(arrays) == {
        "images": ("uint8", (12, 28, 28)),
        "codes": ("float32", (12, 3)),
        "seed": ("int64", ()),
        "step": ("int64", ()),
    }
    assert [int(arrays[name]) for name in ("seed", "step")] == [3, 7]
    names = names_in(Path("png"))
    assert names == [f"{number:02d}.png" for number in range(12)]
    assert np.array_equal(np.stack([np.asarray(Image.open(Path("png", name))) for name in names]), arrays["images"])
    cell = np.asarray(Image.open("picture.png"))[:28, 28:56]
    assert np.abs(255 - cell.astype(int) - arrays["images"][1]).max() <= 1  # dark ink on white; both are rounded
    for source, out in (("png", "from-files.npz"), ("a.npz", "from-arrays.npz")):
        assert main(["encode", "small", "--images", source, "--out", out]) == 0
    assert Path("from-files.npz").read_bytes() == Path("from-arrays.npz").read_bytes()
    codes = _load("from-files.npz")
    assert _forms(codes) == {"codes": ("float32", (12, 3)), "indices": ("int64", (12,)), "split": ("str96", (12,))}
    assert set(codes["split"].tolist()) == {"own"}


def test_the_codes_of_the_data_set_come_with_labels_and_what_they_are_of(folder: Path) -> None:
    """Training images, then those held out, each counted from 0, as the encoder gives them: as the decoder takes them."""
    assert main(["encode", "small", "--out", "codes.npz"]) == 0
    found = _load("codes.npz")
    split = found["split"]
    assert [(word, int((split == word).sum())) for word in dict.fromkeys(split.tolist())] == [
        ("train", 10_000),
        ("held-out", 2_000),
    ]
    assert np.array_equal(found["indices"], np.r_[:10_000, :2_000])
    assert _forms(found) == {
        "codes": ("float32", (12_000, 3)),
        "labels": ("int64", (12_000,)),
        "indices": ("int64", (12_000,)),
        "split": ("str256", (12_000,)),
    }
    images = load_images("digits", Path(), train=False)
    model = _weights().model.eval()
    with torch.no_grad():
        expected = model.encoder(images.pixels[:5] / 255)
    torch.testing.assert_close(torch.from_numpy(found["codes"][10_000:10_005]), expected)
    assert found["labels"][10_000:].tolist() == images.labels.tolist()


REFUSED = {
    "x.jpg": "--out x.jpg has to be FILE.png or FILE.npz or a folder",
    "no/x.npz": "there is no folder",
    "pipe.npz": "is there already and is no file",
    "~/nothing/x.npz": f"there is no folder {Path.home()}/nothing",
    "full/": "with something in it already",
    "file/": "is there already and is no folder",
}


@pytest.mark.parametrize("out", REFUSED)
def test_an_out_that_cannot_be_is_told_before_anything_is_computed(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands there stays."""
    os.mkfifo("pipe.npz")
    Path("full").mkdir()
    Path("full", "thesis.tex").write_text("mine")
    Path("file").write_text("mine")
    assert main(["sample", "nobody", "--random", "5", "--out", out]) == 2
    assert main(["sample", "small", "--random", "5", "--out", out]) == 2
    assert REFUSED[out] in capsys.readouterr().err
    assert Path("full", "thesis.tex").read_text() == Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--out lattice.npz", "a lattice is a FILE.png"),
        ("--random 10001 --out x.png", "a picture holds at most 10,000"),
        ("--random 100001 --out x/", "a folder holds at most 100,000"),
        ("--random 1000000000 --out x.npz", "would take 796 GB, and the disk has"),
        ("--random 5 --size 3 --out x.png", "--size, --extent and --mode are a lattice's"),
        ("--random 5 --seed -1 --out x.png", "number from 0 to"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message, nothing written."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**11))
    assert main(["sample", "small", *arguments.split()]) == 2
    assert words in capsys.readouterr().err
    assert names_in(folder) == ["runs"]


def _png(path: Path, mode: str, size: tuple[int, int]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size).save(path, "PNG")


def test_images_of_ones_own_that_do_not_fit_are_told_by_file_and_shape(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message: which file, what is in it, what is wanted; nothing is written."""
    np.savez("floats.npz", images=np.zeros((5, 28, 28), np.float32))
    np.savez("flat.npz", images=np.zeros((5, 784), np.uint8))
    np.savez("none.npz", images=np.zeros((0, 28, 28), np.uint8))
    np.savez("named.npz", x_train=np.zeros((5, 28, 28), np.uint8))
    np.savez("objects.npz", images=np.array([{}, []], object))
    np.save("array.npy", np.zeros((5, 28, 28), np.uint8))
    Path("text.npz").write_text("no arrays")
    Path("empty").mkdir()
    _png(Path("large/b.png"), "L", (32, 28))
    with zipfile.ZipFile("vast.npz", "w") as archive, archive.open("images.npy", "w") as member:
        npy.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 28, 28)})
    _png(Path("coloured/b.png"), "RGB", (28, 28))
    small = Path("large/b.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + small[24:29]
    Path("scans").mkdir()
    Path("scans/b.png").write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
    Path("broken").mkdir()
    Path("broken/b.png").write_bytes(Path("large/b.png").read_bytes()[:50])
    Path("broken/.b.png").write_text("hidden")
    expected = {
        "floats.npz": "`images` is float32 (5, 28, 28); wanted: uint8 (N, 28, 28), 255 = ink",
        "flat.npz": "`images` is uint8 (5, 784); wanted",
        "none.npz": "`images` is uint8 (0, 28, 28); wanted",
        "named.npz": "holds x_train, but no `images`; wanted",
        "objects.npz": "is no .npz that can be read",
        "array.npy": "holds one array without a name; wanted",
        "text.npz": "is no .npz that can be read",
        "vast.npz": "does not fit into memory",
        "scans": "b.png cannot be read: Image size (2500000000 pixels)",
        "nothing": "there is no such file or folder",
        "empty": "holds no PNG file",
        "large": "b.png is 32 x 28, mode L; wanted: 28 x 28, 8-bit grey (L), 255 = ink",
        "coloured": "b.png is 28 x 28, mode RGB; wanted",
        "broken": "b.png",
    }
    for name, words in expected.items():
        assert main(["encode", "small", "--images", name, "--out", "codes.npz"]) == 2, name
        told = capsys.readouterr().err
        assert told.startswith(f"aae-job: --images {name}")
        assert words in told
    assert not Path("codes.npz").exists()
    assert main(["encode", "small", "--images", "flat.npz", "--out", "flat.npz"]) == 2
    assert "would replace the images" in capsys.readouterr().err


def test_weights_of_an_older_checkpoint_than_the_newest_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which checkpoint is damaged, and of which step the picture is."""
    run_dir = RunDir(folder / "runs" / "small")
    run_dir.final_weights.unlink()
    state = {"model": _weights().model.state_dict()}
    older, newest = (save_checkpoint(run_dir, step, state).path for step in (10, 20))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert main(["sample", "small", "--out", "x.png"]) == 0
    told = capsys.readouterr()
    assert told.out == "lattice of step 10: x.png\n"
    assert f"note: {newest} is " in told.err
    assert str(older) not in told.err


def test_dark_ink_on_white_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is taken as it is, with a note: the codes are those of other images than a person sees."""
    np.savez("scans.npz", images=np.full((5, 28, 28), 230, np.uint8))
    assert main(["encode", "small", "--images", "scans.npz", "--out", "codes.npz"]) == 0
    assert "note: scans.npz is light" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["x.npz", "x.png"])
def test_a_disk_that_is_full_leaves_what_stood_there(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and no half file under any name."""
    Path(out).write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert main(["sample", "small", "--random", "2000", "--out", out]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"--out {out} cannot be written" in capsys.readouterr().err
    assert Path(out).read_text() == "old"
    assert names_in(folder) == ["runs", out]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("out", ["x.npz", "x/"])
def test_a_signal_leaves_nothing_half(number: signal.Signals, out: str, tmp_path: Path) -> None:
    """A file and a folder go away with whoever makes them; the signals then mean again what they did."""
    before = signal.getsignal(number)
    target = destination(f"{tmp_path}/{out}", ".npz", FOLDER)

    def interrupted() -> None:
        with target.folder() if out == "x/" else target.file():
            assert len(names_in(tmp_path)) == 1
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names_in(tmp_path) == []
    assert signal.getsignal(number) is before


def test_a_file_is_replaced_where_a_link_leads_and_a_folder_never(tmp_path: Path) -> None:
    """A link stays a link; into a folder that something has come into meanwhile nothing is put."""
    (tmp_path / "scratch").mkdir()
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "scratch" / "real.npz")
    with destination(str(link), ".npz").file() as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "scratch" / "real.npz").read_bytes() == b"new"
    (tmp_path / "out").mkdir()
    target = destination(str(tmp_path / "out"), FOLDER)

    def meet_another() -> None:
        with target.folder() as folder:
            (folder / "0.png").touch()
            (tmp_path / "out" / "mine").touch()

    with pytest.raises(AaeError, match="not empty"):
        meet_another()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.npz", "mine", "out", "real.npz", "scratch"]
    with pytest.raises(UsageError, match="already"):
        destination(str(tmp_path / "out"), FOLDER)
