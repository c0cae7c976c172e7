"""An exponential moving average of the encoder's and the decoder's weights: what is drawn, measured and kept."""

import copy
from typing import Any

import torch
from torch import Tensor

from aae.networks import AdversarialAutoencoder

EVERY_STEPS = 10  # the average moves less often than the weights: a pass over all of them costs a twelfth of a step


class AveragedWeights:
    """A model that follows the trained one; with decay 0 it is the trained one itself.

    Each `EVERY_STEPS` steps the past keeps the weight decay^EVERY_STEPS, less at the beginning, when it is all noise.
    """

    def __init__(self, model: AdversarialAutoencoder, decay: float) -> None:
        self.model = model
        self._decay = decay
        self._trained: list[Tensor] = []
        self._averages: list[Tensor] = []
        if decay:
            self.model = copy.deepcopy(model)
            self.model.discriminator = model.discriminator  # it is no part of what is kept an average of
            self._trained, self._averages = _weights(model), _weights(self.model)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Follow the trained weights after a step."""
        if self._decay and step % EVERY_STEPS == 0:
            number = step // EVERY_STEPS
            kept = min(self._decay**EVERY_STEPS, (1 + number) / (10 + number))
            torch._foreach_lerp_(self._averages, self._trained, 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """The averages by the model's names, which go before its own; none where there is no average."""
        return {n: w for n, w in self.model.state_dict().items() if self._decay and not n.startswith("discriminator.")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if self._decay:
            self.model.load_state_dict(state, strict=False)


def _weights(model: AdversarialAutoencoder) -> list[Tensor]:
    return [p.detach() for network in (model.encoder, model.decoder) for p in network.parameters()]
