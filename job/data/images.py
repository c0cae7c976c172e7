"""The images of a data set and their classes: the embedded digits, or torchvision's files."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aae.networks import NUM_PIXELS
from job.data.datasets import (
    NUM_HELD_OUT_IMAGES,
    NUM_TRAINING_IMAGES,
    TORCHVISION_CLASS,
    Dataset,
    check_files,
    raw_folder,
)
from job.errors import UsageError


@dataclass(frozen=True)
class Images:
    """Images as uint8 (N, 784), 255 = ink, and their classes as int64 (N,), 0 to 9."""

    pixels: Tensor
    labels: Tensor


def load_images(dataset: Dataset, data_dir: Path, *, train: bool) -> Images:
    """The training images, or those held out: MNIST's test images, of `digits` its last 2,000.

    Raises UsageError if a file does not hold what it has to, OSError if one is not there, or cannot be read now.
    """
    num_train, num_held_out = NUM_TRAINING_IMAGES[dataset], NUM_HELD_OUT_IMAGES[dataset]
    if dataset == "digits":
        with files("job.data").joinpath("digits", "digits.npz").open("rb") as file, np.load(file) as arrays:
            part = slice(0, num_train) if train else slice(num_train, None)
            pixels, labels = torch.from_numpy(arrays["images"][part]), torch.from_numpy(arrays["labels"][part])
    else:
        check_files(dataset, data_dir)
        import torchvision

        try:
            found = getattr(torchvision.datasets, TORCHVISION_CLASS[dataset])(data_dir, train=train)
            pixels, labels = found.data.reshape(num_train if train else num_held_out, NUM_PIXELS), found.targets
        except (AssertionError, ValueError, RuntimeError, LookupError) as error:
            raise UsageError(
                f"AAE_DATASET={dataset}: a file in {raw_folder(dataset, data_dir)} does not hold what it has to ({error}); "
                f"remove them and type aae-job fetch --dataset {dataset}"
            ) from error
    return Images(pixels.reshape(-1, NUM_PIXELS), labels.long())


def held_out_sample(images: Images, size: int) -> Tensor:
    """The same `size` images (size, 784) every time, at random from all of them: neighbours are of the same writer."""
    chosen = torch.randperm(len(images.pixels), generator=torch.Generator().manual_seed(0))[:size]
    return images.pixels[chosen]
