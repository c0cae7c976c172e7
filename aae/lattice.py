"""The lattice of decoded codes: one picture that is a map of the latent plane.

Row = second coordinate, +extent at the top; column = first coordinate, -extent at the left; further coordinates 0.
Dark ink on white.
"""

import math

import torch
from torch import Tensor

from aae.networks import IMAGE_SIDE, Decoder


def lattice_codes(size: int, extent: float, latent_dim: int) -> Tensor:
    """Codes (size * size, latent_dim) of the lattice's cells, row by row from the top left, in even steps with both ends.

    A lattice of one cell holds the origin.
    """
    axis = torch.linspace(-extent, extent, size) if size > 1 else torch.zeros(1)
    codes = torch.zeros(size, size, latent_dim)
    codes[..., 0] = axis
    codes[..., 1] = axis.flip(0)[:, None]
    return codes.reshape(size * size, latent_dim)


@torch.no_grad()
def decode_picture(decoder: Decoder, codes: Tensor) -> Tensor:
    """Decode codes (N, Z) in eval mode into one picture, ceil(sqrt(N)) cells a side, filled row by row.

    Returns uint8 (side * 28, side * 28), round(255 (1 - p)), on the CPU; cells without a code stay white. Draws no
    random number and leaves the decoder's mode as it was.
    """
    device = next(decoder.parameters()).device
    was_training = decoder.training
    decoder.eval()
    ink = torch.sigmoid(decoder(codes.to(device))).cpu()  # (N, X)
    decoder.train(was_training)
    side = math.isqrt(len(codes) - 1) + 1
    cells = torch.zeros(side * side, IMAGE_SIDE, IMAGE_SIDE)
    cells[: len(codes)] = ink.view(-1, IMAGE_SIDE, IMAGE_SIDE)
    grid = cells.view(side, side, IMAGE_SIDE, IMAGE_SIDE).permute(0, 2, 1, 3)  # row, y, column, x
    picture = grid.reshape(side * IMAGE_SIDE, side * IMAGE_SIDE)
    return ((1 - picture) * 255).round().to(torch.uint8)
