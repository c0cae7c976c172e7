"""The data set, whole on the device as uint8; the batch at step n is a function of (seed, n)."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aae.networks import NUM_PIXELS
from job.datasets import NUM_HELD_OUT_IMAGES, NUM_TRAINING_IMAGES, TORCHVISION_CLASS
from job.errors import AaeError, UsageError
from job.settings import Settings


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


@dataclass(frozen=True)
class Images:
    """Images as uint8 (N, 784), 255 = ink, and their classes as int64 (N,), 0 to 9."""

    pixels: Tensor
    labels: Tensor


def load_images(settings: Settings, *, train: bool) -> Images:
    """The training images, or those held out: MNIST's test images, of `digits` its last 2,000.

    Raises UsageError if their number is not the data set's.
    """
    num_train, num_held_out = NUM_TRAINING_IMAGES[settings.dataset], NUM_HELD_OUT_IMAGES[settings.dataset]
    if settings.dataset == "digits":
        with files("job").joinpath("digits", "digits.npz").open("rb") as file, np.load(file) as arrays:
            part = slice(0, num_train) if train else slice(num_train, None)
            pixels, labels = torch.from_numpy(arrays["images"][part]), torch.from_numpy(arrays["labels"][part])
    else:
        import torchvision

        found = getattr(torchvision.datasets, TORCHVISION_CLASS[settings.dataset])(settings.data_dir, train=train)
        pixels, labels = found.data, found.targets
    expected = num_train if train else num_held_out
    if len(pixels) != expected:
        raise UsageError(
            f"AAE_DATASET={settings.dataset}: {len(pixels)} {'training' if train else 'test'} images in "
            f"{settings.data_dir}, expected {expected}; remove the folder and fetch it again"
        )
    return Images(pixels.reshape(expected, NUM_PIXELS), labels.long())


def held_out_sample(images: Images, size: int) -> Tensor:
    """The same `size` images (size, 784) every time, at random from all of them: neighbours are of the same writer."""
    chosen = torch.randperm(len(images.pixels), generator=torch.Generator().manual_seed(0))[:size]
    return images.pixels[chosen]


class Batches:
    """Shuffled batches of a data set on the device; drops the last partial batch of each epoch."""

    def __init__(self, images: Tensor, batch_size: int, seed: int, device: torch.device) -> None:
        self.steps_per_epoch = len(images) // batch_size
        self._images = images.to(device)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._order = torch.empty(0, dtype=torch.int64)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to; both count from 1."""
        return (step - 1) // self.steps_per_epoch + 1

    def at(self, step: int) -> Tensor:
        """The batch of a step, counted from 1, as float32 (B, 784) in [0, 1] on the device."""
        if self.epoch(step) != self._epoch:
            self._epoch = self.epoch(step)
            # Drawn on the CPU, so that every device sees the same batches; one copy an epoch, which nobody waits for.
            order = self._permutation()
            if self._images.is_cuda:
                order = order.pin_memory()
            self._order = order.to(self._images.device, non_blocking=True)
        start = (step - 1) % self.steps_per_epoch * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        return self._images.index_select(0, chosen).float().div_(255)

    def _permutation(self) -> Tensor:
        mixed = np.random.SeedSequence((self._seed, self._epoch)).generate_state(1, np.uint64)[0]
        return torch.randperm(len(self._images), generator=torch.Generator().manual_seed(int(mixed)))
