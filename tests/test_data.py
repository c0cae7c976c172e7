"""The files of a data set: there, whole, and brought back from their .gz or a mirror."""

import functools
import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision

from job.data import datasets
from job.data.datasets import FILES, broken_files, check_dataset, check_files, fetch
from job.data.images import load_images
from job.errors import AaeError, UsageError

COUNTS = {"train": 5, "t10k": 3}


def _content(name: str) -> bytes:
    """A small file of the kind, in the format in which they are published."""
    count = COUNTS[name.split("-")[0]]
    if "labels" in name:
        return struct.pack(">ii", 2049, count) + bytes(range(count))
    return struct.pack(">iiii", 2051, count, 28, 28) + bytes(i % 251 for i in range(count * 784))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server on this machine that has a small MNIST; what the code knows of the real one is replaced by what is true of it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    contents = {name: _content(name) for name in FILES}
    packed = {name: gzip.compress(content) for name, content in contents.items()}
    for name, content in packed.items():
        (folder / f"{name}.gz").write_bytes(content)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in ("MNIST", "KMNIST"):
        kind = getattr(torchvision.datasets, name)
        monkeypatch.setattr(kind, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        md5s = [(f"{name}.gz", hashlib.md5(content).hexdigest()) for name, content in packed.items()]
        monkeypatch.setattr(kind, "resources", md5s)
    monkeypatch.setattr(datasets, "FILES", {name: len(content) for name, content in contents.items()})
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(datasets, "DIGESTS", {"mnist": digests})
    monkeypatch.setattr("job.data.images.NUM_TRAINING_IMAGES", {"mnist": 5, "kmnist": 5})
    monkeypatch.setattr("job.data.images.NUM_HELD_OUT_IMAGES", {"mnist": 3, "kmnist": 3})
    yield folder
    server.shutdown()
    server.server_close()


NAME = "train-images-idx3-ubyte"


@pytest.mark.parametrize("fault", ["short", "empty", "long", "one bit", "missing", "test labels short"])
@pytest.mark.parametrize("dataset", ["mnist", "kmnist"])
def test_a_broken_file_is_found_and_fetched_anew(dataset: str, fault: str, mirror: Path, tmp_path: Path) -> None:
    """By its size before a job is queued, by every byte at fetch and before the first step; of kmnist by what fetch wrote down."""
    folder = fetch(dataset, tmp_path)
    raw = folder / "raw"
    for packed in raw.glob("*.gz"):
        packed.unlink()
    path = raw / (NAME if "labels" not in fault else "t10k-labels-idx1-ubyte")
    good = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "one bit":
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    else:
        path.write_bytes({"short": good[:-9], "empty": b"", "long": good + b"x"}.get(fault, good[:-1]))
    with pytest.raises(UsageError) as caught:
        check_dataset(dataset, tmp_path, every_byte=fault == "one bit")
    assert path.name in str(caught.value)
    assert f"aae-job fetch --dataset {dataset}" in str(caught.value)
    if fault in ("short", "empty", "long"):
        assert f"{path.stat().st_size:,} bytes instead of {len(good):,}" in str(caught.value)
    fetch(dataset, tmp_path)
    assert path.read_bytes() == good
    assert broken_files(dataset, tmp_path, every_byte=True) == {}
    assert load_images(dataset, tmp_path, train=True).pixels.shape == (5, 784)  # type: ignore[arg-type]


def test_a_start_waits_for_files_that_are_away(mirror: Path, tmp_path: Path) -> None:
    """Whoever types is told at once; a job's data may be on a disk that is away for a moment."""
    with pytest.raises(UsageError, match="is not there"):
        check_dataset("mnist", tmp_path)
    with pytest.raises(FileNotFoundError, match="is not there"):
        check_files("mnist", tmp_path)


def test_where_only_the_packed_files_are_no_internet_is_needed(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody else has packed them, if what is in them is right; a .gz that is not does no harm."""
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in FILES:
        (raw / f"{name}.gz").write_bytes(gzip.compress(_content(name), compresslevel=1, mtime=1))
    with pytest.raises(UsageError, match="needs no internet"):
        check_dataset("mnist", tmp_path)
    fetch("mnist", tmp_path)
    assert broken_files("mnist", tmp_path, every_byte=True) == {}
    (raw / NAME).write_bytes(b"mine")
    (raw / f"{NAME}.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(AaeError, match="could not be downloaded"):
        fetch("mnist", tmp_path)
    assert (raw / NAME).read_bytes() == b"mine"
    assert not [path for path in raw.iterdir() if path.name.endswith((".tmp", ".broken"))]


def test_a_file_of_the_right_length_that_is_something_else_is_no_traceback(mirror: Path, tmp_path: Path) -> None:
    """One that no digest is known of."""
    raw = fetch("kmnist", tmp_path) / "raw"
    (raw / "SHA256SUMS").unlink()
    (raw / NAME).write_bytes(bytes(len(_content(NAME))))
    with pytest.raises(UsageError, match="does not hold what it has to"):
        load_images("kmnist", tmp_path, train=True)
