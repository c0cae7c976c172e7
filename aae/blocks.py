"""Any number of images or codes through a network, a block of constant shape at a time, in eval mode.

A matrix product of another shape may round otherwise. In full blocks, the last filled up with zeros, a row becomes the same bytes
however many come after it. Nothing random is drawn.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aae.networks import Decoder, Encoder

ROWS = 1000  # in a block


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[torch.device]:
    """Have a network in eval mode, without gradients, and leave its mode as it was; gives the device it is on."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield next(network.parameters()).device
    finally:
        network.train(was_training)


def in_blocks(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a function from (ROWS, I) to (ROWS, O), row by row independent, to N >= 1 rows (N, I); returns (N, O)."""
    return torch.cat([function(F.pad(part, (0, 0, 0, ROWS - len(part))))[: len(part)] for part in rows.split(ROWS)])


def encode(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The codes (N, Z) of images uint8 (N, X), 255 = ink, on the CPU; the memory taken is a block's, and the codes'."""
    with evaluating(encoder) as device:
        return in_blocks(lambda block: encoder(block.to(device).float().div_(255)).cpu(), pixels)


def decode(decoder: Decoder, codes: Tensor) -> Tensor:
    """The images (N, X) of codes (N, Z), as ink from 0 to 1, on the CPU."""
    with evaluating(decoder) as device:
        # The sigmoid too in whole blocks: the end of a vector of other length is computed otherwise.
        return in_blocks(lambda block: decoder(block.to(device)).sigmoid_().cpu(), codes)
