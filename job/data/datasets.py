"""Which data sets there are, how large they are, where their files lie and how they come there; loads no torch by itself."""

from pathlib import Path
from typing import Literal

from job.errors import AaeError, UsageError
from job.rundir.small_file import exists

Dataset = Literal["digits", "mnist", "fashion-mnist", "kmnist"]

NUM_TRAINING_IMAGES: dict[str, int] = {"digits": 10_000, "mnist": 60_000, "fashion-mnist": 60_000, "kmnist": 60_000}
NUM_HELD_OUT_IMAGES: dict[str, int] = {"digits": 2_000, "mnist": 10_000, "fashion-mnist": 10_000, "kmnist": 10_000}

# Class in torchvision.datasets; its folder below the root has the same name. `digits` is embedded in this package.
TORCHVISION_CLASS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def check_dataset(dataset: str, data_dir: Path) -> None:
    """Raise UsageError if the files of a data set are not there."""
    missing = missing_files(dataset, data_dir)
    if missing:
        names = " and no ".join(path.name for path in missing)
        raise UsageError(
            f"AAE_DATASET={dataset}: no {names} in {missing[0].parent}; set AAE_DATA_DIR to where they are, or type "
            f"on a machine with internet: aae-job fetch --dataset {dataset} --data-dir {data_dir}"
        )


def missing_files(dataset: str, data_dir: Path) -> list[Path]:
    """Files of a data set that are not there, none of an embedded one; raises OSError if that cannot be said now."""
    if dataset not in TORCHVISION_CLASS:
        return []
    raw = data_dir / TORCHVISION_CLASS[dataset] / "raw"
    names = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    return [raw / name for name in names if not exists(raw / name)]


def fetch(dataset: str, data_dir: Path) -> Path:
    """Download a data set through torchvision, unless it is there; returns its folder. Raises AaeError."""
    import torchvision

    name = TORCHVISION_CLASS[dataset]
    try:
        getattr(torchvision.datasets, name)(data_dir, download=True)
    except (OSError, RuntimeError) as error:
        raise AaeError(
            f"{dataset} could not be downloaded into {data_dir}: {error}; try again, or fetch it on a machine with "
            f"internet and copy {data_dir / name} here"
        ) from error
    return data_dir / name
