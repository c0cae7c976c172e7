"""The training images, whole on the device as uint8; the batch at step n is a function of (seed, n)."""

import numpy as np
import torch
from torch import Tensor


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
        return torch.div(self._images.index_select(0, chosen), 255)

    def _permutation(self) -> Tensor:
        mixed = np.random.SeedSequence((self._seed, self._epoch)).generate_state(1, np.uint64)[0]
        return torch.randperm(len(self._images), generator=torch.Generator().manual_seed(int(mixed)))
