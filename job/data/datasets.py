"""Which data sets there are, how large they are, where their files lie and how they come there; loads no torch by itself."""

import errno
import gzip
import hashlib
import shlex
import shutil
import zlib
from pathlib import Path
from typing import Any, Literal

from job.errors import AaeError, UsageError
from job.rundir.small_file import exists

Dataset = Literal["digits", "mnist", "fashion-mnist", "kmnist"]

NUM_TRAINING_IMAGES: dict[str, int] = {"digits": 10_000, "mnist": 60_000, "fashion-mnist": 60_000, "kmnist": 60_000}
NUM_HELD_OUT_IMAGES: dict[str, int] = {"digits": 2_000, "mnist": 10_000, "fashion-mnist": 10_000, "kmnist": 10_000}

# Class in torchvision.datasets; its folder below the root has the same name. `digits` is embedded in this package.
TORCHVISION_CLASS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


# The unpacked files of each of torchvision's three, in bytes.
FILES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
# SHA-256 of unpacked files. Those that are missing here `fetch` writes down beside the files, once torchvision has compared the
# MD5 of what it unpacked them from.
DIGESTS: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-labels-idx1-ubyte": "14d07dfc02c3ba2fb3c525919e36cc648d3b384b5ad04141924ce8659159cde6",
        "t10k-labels-idx1-ubyte": "955b04d571e1499b9613fdc30a1601655d2ad8894c0ec5685431cdc8945113ee",
    },
}
_SUMS, _ABSENT = "SHA256SUMS", "is not there"


def check_dataset(dataset: str, data_dir: Path, *, every_byte: bool = False) -> None:
    """Raise UsageError if a file of a data set is not there or not as long as it has to be, or, if asked, has another byte."""
    bad = broken_files(dataset, data_dir, every_byte=every_byte)
    if bad:
        where = raw_folder(dataset, data_dir)
        packed = all(exists(where / f"{name}.gz") for name in bad)
        how = "the .gz files are there, so this needs no internet" if packed else "type on a machine with internet"
        raise UsageError(
            "\n".join(
                [
                    f"AAE_DATASET={dataset}: the data set is not whole in {where}",
                    *(f"  {name} {what}" for name, what in bad.items()),
                    "set AAE_DATA_DIR to where the files are, or, to mend it,",
                    f"{how}: aae-job fetch --dataset {dataset} --data-dir {shlex.quote(str(data_dir))}",
                ]
            )
        )


def check_files(dataset: str, data_dir: Path, *, every_byte: bool = False) -> None:
    """As `check_dataset`, for a start: a file that is not there raises FileNotFoundError, since its disk may be away."""
    for name, what in broken_files(dataset, data_dir).items():
        if what == _ABSENT:
            path = raw_folder(dataset, data_dir) / name
            raise FileNotFoundError(errno.ENOENT, f"a file of the data set {dataset} is not there", str(path))
    check_dataset(dataset, data_dir, every_byte=every_byte)


def raw_folder(dataset: str, data_dir: Path) -> Path:
    """Where torchvision keeps the files of a data set."""
    return data_dir / TORCHVISION_CLASS[dataset] / "raw"


def broken_files(dataset: str, data_dir: Path, *, every_byte: bool = False) -> dict[str, str]:
    """What is wrong with which files of a data set, nothing of an embedded one; raises OSError if that cannot be said now."""
    if dataset not in TORCHVISION_CLASS:
        return {}
    raw = raw_folder(dataset, data_dir)
    bad = {}
    digests = {**_digests_beside(raw), **DIGESTS.get(dataset, {})}
    for name, size in FILES.items():
        path = raw / name
        if not exists(path):
            bad[name] = _ABSENT
        elif (found := path.stat().st_size) != size:
            bad[name] = f"has {found:,} bytes instead of {size:,}"
        elif every_byte and name in digests and (digest := _sha256(path)) != digests[name]:
            bad[name] = f"is damaged: its SHA-256 is {digest}, not {digests[name]}"
    return bad


def _digests_beside(raw: Path) -> dict[str, str]:
    """As `fetch` wrote them down; what a person puts there is compared as well."""
    path = raw / _SUMS
    words = (line.split() for line in path.read_text(errors="replace").splitlines()) if exists(path) else ()
    return {pair[1].lstrip("*"): pair[0] for pair in words if len(pair) == 2 and pair[1].lstrip("*") in FILES}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(dataset: str, data_dir: Path) -> Path:
    """See to it that a data set is there, every byte of it: what is missing or broken is unpacked from its .gz, or downloaded.

    Returns its folder. Raises AaeError and leaves what was there.
    """
    import torchvision

    raw, data = raw_folder(dataset, data_dir), getattr(torchvision.datasets, TORCHVISION_CLASS[dataset])
    try:
        broken = broken_files(dataset, data_dir, every_byte=True)
        for name in broken:
            _unpack(raw, name, DIGESTS.get(dataset, {}).get(name), dict(data.resources)[f"{name}.gz"])
        still = broken_files(dataset, data_dir, every_byte=True)
        if still:
            _download(raw, data, still, data_dir)
            still = broken_files(dataset, data_dir, every_byte=True)
        if broken and not still:
            (raw / _SUMS).write_text("".join(f"{_sha256(raw / name)}  {name}\n" for name in FILES))
    except (OSError, RuntimeError, ValueError) as error:
        raise AaeError(
            f"{dataset} could not be downloaded into {data_dir}: {error}; try again, or fetch it on a machine with "
            f"internet and copy {raw.parent} here"
        ) from error
    if still:
        names = "; ".join(f"{name} {what}" for name, what in still.items())
        raise AaeError(f"{raw}: {names}, though it was fetched anew; take the files from elsewhere")
    return raw.parent


def _unpack(raw: Path, name: str, sha256: str | None, md5_packed: str) -> None:
    """Put the content of a file's .gz in its place, if there is one and it is the right one, whoever has packed it."""
    packed, unpacked = raw / f"{name}.gz", raw / f".{name}.tmp"
    if not exists(packed):
        return
    try:
        with gzip.open(packed) as source, unpacked.open("wb") as target:
            shutil.copyfileobj(source, target)
        with packed.open("rb") as file:
            as_published = hashlib.file_digest(file, "md5").hexdigest() == md5_packed
        if as_published if sha256 is None else _sha256(unpacked) == sha256:
            unpacked.replace(raw / name)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        pass  # it is downloaded anew
    finally:
        unpacked.unlink(missing_ok=True)


def _download(raw: Path, data: Any, broken: dict[str, str], data_dir: Path) -> None:
    """Through torchvision, which takes a file that is there for whole; what was there comes back if that fails."""
    aside = [(raw / name, raw / f"{name}.broken") for name, what in broken.items() if what != _ABSENT]
    for path, kept in aside:
        path.rename(kept)
    try:
        data(data_dir, download=True)
    except BaseException:
        for path, kept in aside:
            kept.replace(path)
        raise
    for _, kept in aside:
        kept.unlink(missing_ok=True)
