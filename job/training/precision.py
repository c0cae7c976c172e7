"""The networks in the precision of the products, beside the weights that Adam moves."""

import copy

import torch
from torch import Tensor

from aae.backprop import Gradients
from aae.networks import AdversarialAutoencoder


class Working:
    """The networks that the products read, and the gradients that they write.

    For bfloat16 they are a copy that follows the weights after every update, so that a weight is rounded once an update
    and not once a product; else they are the networks themselves.
    """

    def __init__(self, model: AdversarialAutoencoder, dtype: torch.dtype) -> None:
        self._is_copy = dtype != next(model.parameters()).dtype
        self.networks = copy.deepcopy(model).to(dtype) if self._is_copy else model
        self._weights, self._copies = _tensors(model), _tensors(self.networks)
        self.gradients = {name: Gradients(network) for name, network in self.networks.perceptrons.items()}
        self._full = {name: Gradients(network) for name, network in model.perceptrons.items()} if self._is_copy else {}

    def full_gradients(self, name: str) -> list[Tensor]:
        """A network's gradients in the precision of its weights."""
        gradients = self.gradients[name].tensors
        if self._is_copy:
            torch._foreach_copy_(self._full[name].tensors, gradients)
            return self._full[name].tensors
        return gradients

    @torch.no_grad()
    def follow(self, name: str) -> None:
        """Round a network's weights to the precision of the products, after they have changed."""
        if self._is_copy:
            torch._foreach_copy_(self._copies[name], self._weights[name])


def _tensors(model: AdversarialAutoencoder) -> dict[str, list[Tensor]]:
    """Each network's weights and biases, in the order of its parameters."""
    return {name: [p.detach() for p in network.parameters()] for name, network in model.perceptrons.items()}
