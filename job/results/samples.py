"""Decoded codes from a run's weights: its lattice, or samples of the prior as a picture, as arrays, or as a file each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aae.blocks import ROWS, decode
from aae.lattice import picture
from aae.networks import IMAGE_SIDE
from aae.prior import sample_prior
from job.results.npz import Array, Streamed
from job.results.pictures import lattice_of, lattice_png, png
from job.results.weights import Weights


def sample_lattice(weights: Weights, **changes: Any) -> bytes:
    """A lattice as a PNG: the run's own, but for `changes` (size, extent, mode) that are not None."""
    chosen = {name: value for name, value in changes.items() if value is not None}
    return lattice_png(weights.model.decoder, replace(lattice_of(weights.settings), **chosen), weights.step)


@dataclass(frozen=True)
class PriorSamples:
    """Samples of the prior, decoded. Each is a function of weights, seed and its number, however many there are."""

    weights: Weights
    num: int
    seed: int
    observe: Callable[[int], None] = lambda _: None  # told how many are decoded

    def codes(self) -> Iterator[Tensor]:
        """In blocks (ROWS, Z), the last shorter."""
        settings = self.weights.settings
        generator = torch.Generator().manual_seed(self.seed)
        for first in range(0, self.num, ROWS):
            # Drawn whole, since the end of a draw depends on its length.
            block = sample_prior(ROWS, settings.latent_dim, settings.prior_std, generator=generator)
            yield block[: self.num - first]

    def ink(self) -> Iterator[Tensor]:
        """The images (ROWS, X) of these blocks, as ink from 0 to 1."""
        for number, codes in enumerate(self.codes()):
            yield decode(self.weights.model.decoder, codes)
            self.observe(number * ROWS + len(codes))

    def images(self) -> Iterator[Array]:
        """The same as uint8 (ROWS, 28, 28), 255 = ink, as in the data sets."""
        for ink in self.ink():
            yield ink.mul_(255).round_().to(torch.uint8).view(-1, IMAGE_SIDE, IMAGE_SIDE).numpy()

    def png(self) -> bytes:
        """All in one picture, dark ink on white, ceil(sqrt(num)) a side."""
        return png(picture(torch.cat(list(self.ink()))), self._texts("random"))

    def arrays(self) -> dict[str, Array | Streamed]:
        """For a .npz: images (N, 28, 28) uint8, codes (N, Z) float32, seed, step."""
        shape, latent_dim = (self.num, IMAGE_SIDE, IMAGE_SIDE), self.weights.settings.latent_dim
        return {
            "images": Streamed(shape, np.dtype(np.uint8), self.images()),
            "codes": Streamed((self.num, latent_dim), np.dtype(np.float32), (codes.numpy() for codes in self.codes())),
            "seed": np.array(self.seed),
            "step": np.array(self.weights.step),
        }

    def write_into(self, folder: Path) -> None:
        """A PNG each, 28 x 28, 255 = ink, named by their numbers so that names sort as they do."""
        digits = len(str(self.num - 1))
        numbers = iter(range(self.num))
        for images in self.images():
            for image in images:
                number = next(numbers)
                content = png(torch.from_numpy(image), {**self._texts("sample"), "number": str(number)})
                (folder / f"{number:0{digits}d}.png").write_bytes(content)

    def _texts(self, mode: str) -> dict[str, str]:
        latent_dim = self.weights.settings.latent_dim
        return {"step": str(self.weights.step), "latent_dim": str(latent_dim), "mode": mode, "seed": str(self.seed)}
