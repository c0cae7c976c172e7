"""The lattice of decoded codes: one picture that is a map of the latent plane.

Row = second coordinate, largest at the top; column = first coordinate, smallest at the left; further coordinates 0.
Dark ink on white.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aae.blocks import evaluating
from aae.networks import IMAGE_SIDE, Decoder


@dataclass(frozen=True)
class Lattice:
    """Which codes are decoded: `size` a side, in a plane of the latent space.

    Mode `unit`: even steps from -extent to +extent, both included (the lecture's, with extent 1). Mode `quantile`: each cell
    holds the same mass of the prior N(0, prior_std^2) and is shown at its median, so that the picture has all of it.
    """

    size: int
    extent: float
    mode: str
    latent_dim: int
    prior_std: float

    def axis(self) -> Tensor:
        """The coordinates (size,) of the columns, rising; a lattice of one cell holds the origin."""
        if self.mode == "quantile":
            shares = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size
            medians: Tensor = torch.special.ndtri(shares) * self.prior_std
            return medians.float()
        return torch.linspace(-self.extent, self.extent, self.size) if self.size > 1 else torch.zeros(1)

    def codes(self) -> Tensor:
        """The codes (size * size, latent_dim) of the cells, row by row from the top left."""
        axis = self.axis()
        codes = torch.zeros(self.size, self.size, self.latent_dim)
        codes[..., 0] = axis
        codes[..., 1] = axis.flip(0)[:, None]
        return codes.reshape(self.size * self.size, self.latent_dim)

    def texts(self) -> dict[str, str]:
        """What a picture says of itself: the outermost coordinate, the dimensions, the mode, and the plane if there are more."""
        extent = self.extent if self.mode == "unit" else round(float(self.axis()[-1]), 6)
        texts = {"extent": str(extent), "latent_dim": str(self.latent_dim), "mode": self.mode}
        if self.latent_dim > 2:
            texts["plane"] = "column: coordinate 1, row: coordinate 2, all others 0"
        return texts


def decode_picture(decoder: Decoder, codes: Tensor) -> Tensor:
    """Decode codes (N, Z), all at once, in eval mode, into one `picture`. Draws no random number."""
    with evaluating(decoder) as device:
        return picture(torch.sigmoid(decoder(codes.to(device))).cpu())


def picture(ink: Tensor) -> Tensor:
    """Images (N, X), as ink from 0 to 1, in one picture, ceil(sqrt(N)) cells a side, filled row by row.

    Returns uint8 (side * 28, side * 28), round(255 (1 - ink)); cells without an image stay white.
    """
    side = math.isqrt(len(ink) - 1) + 1
    cells = torch.zeros(side * side, IMAGE_SIDE, IMAGE_SIDE)
    cells[: len(ink)] = ink.view(-1, IMAGE_SIDE, IMAGE_SIDE)
    grid = cells.view(side, side, IMAGE_SIDE, IMAGE_SIDE).permute(0, 2, 1, 3)  # row, y, column, x
    together = grid.reshape(side * IMAGE_SIDE, side * IMAGE_SIDE)
    return ((1 - together) * 255).round().to(torch.uint8)
