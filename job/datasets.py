"""Which data sets there are, how large they are and where their files lie; loads neither torch nor data."""

from pathlib import Path
from typing import Literal

from job.errors import UsageError

Dataset = Literal["digits", "mnist", "fashion-mnist", "kmnist"]

NUM_TRAINING_IMAGES: dict[str, int] = {"digits": 10_000, "mnist": 60_000, "fashion-mnist": 60_000, "kmnist": 60_000}

# Class in torchvision.datasets; its folder below the root has the same name. `digits` is embedded in this package.
TORCHVISION_CLASS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def check_dataset(dataset: str, data_dir: Path) -> None:
    """Raise UsageError if the files of a data set are not there."""
    if dataset not in TORCHVISION_CLASS:
        return
    raw = data_dir / TORCHVISION_CLASS[dataset] / "raw"
    missing = [name for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte") if not (raw / name).is_file()]
    if missing:
        raise UsageError(
            f"AAE_DATASET={dataset}: no {' and no '.join(missing)} in {raw}; set AAE_DATA_DIR to where they are, or type "
            f"on a machine with internet: aae-job fetch --dataset {dataset} --data-dir {data_dir}"
        )
