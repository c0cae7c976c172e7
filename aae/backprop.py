"""A forward and a backward pass through a perceptron, written out.

Autograd gives the same numbers. Written out, a pass draws its dropout masks cheaply, computes no gradient that nobody
takes, and puts gradients where those of the step before were: fresh memory for them cost 15 ms of a step of 78 in page
faults (2 cores AMD EPYC).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aae.networks import Perceptron


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves for its backward pass: inputs (B, I), both hidden layers (B, H), the scale of dropout."""

    inputs: Tensor
    hidden1: Tensor
    hidden2: Tensor
    scale: float


def dropout_masks(like: Tensor, num: int, rate: float) -> Tensor:
    """Masks (num, *like.shape) of the type and device of `like`: 0 with probability `rate`, else 1 / (1 - rate).

    Each element takes 16 random bits, so `rate` is rounded to a multiple of 2^-16. `bernoulli_`, which torch's dropout
    uses, takes six times as long on a CPU and was a fifth of a step.
    """
    keep = like.new_empty(num, *like.shape)
    words = torch.empty(-(-keep.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    # Compared straight into floating point: a mask of bools would take longer to convert than to draw.
    torch.ge(words.view(torch.int16)[: keep.numel()].view(keep.shape), round(rate * 2**16) - 2**15, out=keep)
    return keep.mul_(1 / (1 - rate))


def first_layer(network: Perceptron, inputs: Tensor) -> Tensor:
    """The first product of a forward pass: inputs (B, I) -> (B, H), before dropout and ReLU."""
    return _linear(inputs, network.hidden1)


def forward(
    network: Perceptron, inputs: Tensor, *, dropout: bool = True, first: Tensor | None = None
) -> tuple[Tensor, Pass]:
    """Inputs (B, I) -> outputs (B, O), and what `backward` needs; `first` is `first_layer` of these inputs if it is known."""
    rate = network.dropout if dropout else 0.0
    first = first_layer(network, inputs) if first is None else first
    if rate:
        hidden1, hidden2 = dropout_masks(first, 2, rate)  # the masks become the activations
        hidden1.mul_(first).relu_()
        hidden2.mul_(_linear(hidden1, network.hidden2)).relu_()
    else:
        hidden1 = first.relu()
        hidden2 = _linear(hidden1, network.hidden2).relu_()
    return _linear(hidden2, network.output), Pass(inputs, hidden1, hidden2, 1 / (1 - rate))


def backward(network: Perceptron, of: Pass, gradient: Tensor, into: list[Tensor] | None) -> Tensor:
    """The gradient of a loss with respect to the first layer (B, H), from that with respect to the outputs (B, O).

    The weights' gradients are written `into` tensors in the order of the network's parameters; None leaves them out.
    """

    def before(layer: torch.nn.Linear, gradient: Tensor, hidden: Tensor) -> Tensor:
        # An activation is above zero where it was neither dropped nor cut off.
        gradient = gradient @ layer.weight
        torch.ops.aten.threshold_backward.grad_input(gradient, hidden, 0, grad_input=gradient)
        return gradient.mul_(of.scale)

    gradient2 = before(network.output, gradient, of.hidden2)
    gradient1 = before(network.hidden2, gradient2, of.hidden1)
    if into is not None:
        gradients, layer_inputs = (gradient1, gradient2, gradient), (of.inputs, of.hidden1, of.hidden2)
        for g, x, weight, bias in zip(gradients, layer_inputs, into[::2], into[1::2], strict=True):
            torch.mm(g.t(), x, out=weight)
            torch.sum(g, 0, out=bias)
    return gradient1


def add_gradient_penalty(network: Perceptron, of: Pass, num: int, weight: float, into: list[Tensor]) -> None:
    """Add the gradients of weight / 2 times the mean squared norm of dD/dx over the first `num` inputs of a pass.

    R1 of Mescheder et al., 2018, if these are the real ones; for a network with one output. Where no activation changes its
    sign, dD/dx = output W2 W1 behind their masks: a product of weights, whose derivatives need no second pass of autograd.
    """
    mask1, mask2 = ((hidden[:num] > 0).to(hidden.dtype).mul_(of.scale) for hidden in (of.hidden1, of.hidden2))
    above2 = mask2 * network.output.weight  # dD/d(hidden2 before its mask), (num, H)
    above1 = mask1 * (above2 @ network.hidden2.weight)  # (num, H)
    slope = above1 @ network.hidden1.weight  # dD/dx, (num, I)
    below1 = mask1.mul_(slope @ network.hidden1.weight.t())  # (num, H)
    below2 = mask2.mul_(below1 @ network.hidden2.weight.t())  # (num, H)
    share = weight / num
    into[0].addmm_(above1.t(), slope, alpha=share)
    into[2].addmm_(above2.t(), below1, alpha=share)
    into[4].add_(below2.sum(0, keepdim=True), alpha=share)


def loss_and_gradient(loss: Callable[[Tensor], Tensor], outputs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A loss, computed in `dtype`, and its gradient with respect to a network's outputs."""
    with torch.enable_grad():
        leaf = outputs.detach().to(dtype).requires_grad_()
        value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient.to(outputs.dtype)


def _linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return torch.addmm(layer.bias, x, layer.weight.t())
