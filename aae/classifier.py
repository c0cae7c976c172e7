"""A small classifier, trained afresh: what tells two samples apart, probes codes, and names decoded digits."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from aae.adam import Adam


def fit_classifier(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    hidden_dim: int | None,
    steps: int,
    lr: float,
    seed: int,
    batch_size: int | None = None,
) -> Callable[[Tensor], Tensor]:
    """Train on inputs (N, I) and labels (N); returns the function from inputs (N, I) to logits (N, num_classes).

    One hidden layer with ReLU, or none for a linear classifier; Adam with a rate that falls to 0 as half a cosine; all
    inputs in every step, or random batches. The same seed gives the same classifier.
    """
    generator = torch.Generator().manual_seed(seed)
    widths = [inputs.shape[1], num_classes] if hidden_dim is None else [inputs.shape[1], hidden_dim, num_classes]
    layers = []
    for num_inputs, num_outputs in pairwise(widths):
        weight = torch.randn(num_outputs, num_inputs, generator=generator) * math.sqrt(
            2 / num_inputs
        )  # He et al., 2015
        layers += [weight, torch.zeros(num_outputs)]
    parameters = [tensor.to(inputs.device).requires_grad_() for tensor in layers]

    def logits(x: Tensor) -> Tensor:
        x = F.linear(x, *parameters[:2])
        return x if hidden_dim is None else F.linear(x.relu(), *parameters[2:])

    made = torch.zeros((), device=inputs.device)
    adam = Adam([p.detach() for p in parameters], made)
    x, y = inputs, labels
    with torch.enable_grad():
        for step in range(steps):
            if batch_size is not None:
                chosen = torch.randint(len(inputs), (batch_size,), generator=generator).to(inputs.device)
                x, y = inputs[chosen], labels[chosen]
            gradients = torch.autograd.grad(F.cross_entropy(logits(x), y), parameters)
            made.add_(1)
            adam.step(list(gradients), lr * 0.5 * (1 + math.cos(math.pi * step / steps)))

    @torch.no_grad()
    def classify(x: Tensor) -> Tensor:
        return logits(x)

    return classify
