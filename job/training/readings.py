"""What a step reads off for the log: READINGS, in few operations, since each of them is a kernel launch on a GPU."""

import torch
from torch import Tensor

# What goes into a reading: the mean of the reconstruction's terms; then the means, over prior samples and over codes, of D's terms,
# of how wrong it is, and of whether it is wrong; and that of the generator's terms.
_WEIGHTS = (
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # reconstruction_loss
    (0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # discriminator_loss
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),  # generator_loss
    (0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0),  # d_prior, less 1
    (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),  # d_code
    (0.0, 0.0, 0.0, 0.0, 0.0, -0.5, -0.5, 0.0),  # d_accuracy, less 1
)
_OFFSETS = (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)


class Readings:
    """Turns the terms of the losses of a step with B images into READINGS, on their device."""

    def __init__(self, batch_size: int, like: Tensor) -> None:
        self._offsets = like.new_tensor(_OFFSETS)
        reconstruction, *others = like.new_tensor(_WEIGHTS).split((1, 7), 1)
        self._weights = torch.cat(
            (reconstruction, *(w.repeat_interleave(batch_size, 1) / batch_size for w in others)), 1
        )

    def of(self, reconstruction: Tensor, discrimination: Tensor, wrong: Tensor, generation: Tensor) -> Tensor:
        """READINGS (6,), from the terms of the reconstruction (B, X), those of D and how wrong it is (2B, 1), prior samples
        before codes, and those of the generator (B, 1).
        """
        of_images = reconstruction.mean().view(1, 1)
        terms = torch.cat((of_images, discrimination, wrong, wrong.round(), generation))  # (1 + 7B, 1)
        return torch.addmv(self._offsets, self._weights, terms.view(-1))
