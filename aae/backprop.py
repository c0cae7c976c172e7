"""A forward and a backward pass through a perceptron, written out.

Autograd gives the same numbers. Written out, a pass computes no gradient that nobody takes, launches half as many kernels, and
puts gradients where those of the step before were: fresh memory for them cost 15 ms of a step of 78 in page faults (2
cores AMD EPYC).

Inputs, activations and outputs are (B, units). On a CPU they lie in memory unit by unit, so that a product reads `weight @
inputs.T` as both are stored: all products of a step take a tenth less time (same machine). On a GPU they lie image by image,
where a product adds the bias by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aae.networks import Perceptron


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves for its backward pass: inputs (B, I), hidden layers (B, H) before the scale of dropout, that."""

    inputs: Tensor
    hidden1: Tensor
    hidden2: Tensor
    scale: float


class Dropout:
    """The dropout masks of all passes of a step, drawn at once into memory that the next draw overwrites.

    `passes` are, in the order in which their masks are given out, a network and how many times the batch it takes.
    """

    def __init__(self, passes: Sequence[tuple[Perceptron, int]]) -> None:
        self._passes = passes
        self._rates = sorted({network.dropout for network, _ in passes if network.dropout})
        self._batch_size = 0
        self._words: Tensor
        self._kept: list[Tensor] = []  # a row for each rate
        self._masks: list[Tensor | None] = []

    def draw(self, batch_size: int) -> list[Tensor | None]:
        """Masks (2, B, H) for the two hidden layers of each pass: 0 with the network's rate, else 1; None for rate 0.

        Each element takes 16 random bits, so a rate is rounded to a multiple of 2^-16. `bernoulli_`, which torch's dropout
        uses, takes six times as long on a CPU and was a fifth of a step.
        """
        if batch_size != self._batch_size:
            self._make_room(batch_size)
        if self._rates:
            self._words.random_(-(2**63), None)
        bits, start = self._words.view(torch.int16), 0
        for rate, kept in zip(self._rates, self._kept, strict=True):
            # Compared straight into floating point: a mask of bools would take longer to convert than to draw.
            torch.ge(bits[start : start + len(kept)], round(rate * 2**16) - 2**15, out=kept)
            start += len(kept)
        return self._masks

    def _make_room(self, batch_size: int) -> None:
        self._batch_size = batch_size
        like = self._passes[0][0].output.weight
        sizes = {rate: sum(self._size(*of) for of in self._passes if of[0].dropout == rate) for rate in self._rates}
        self._words = torch.empty(-(-sum(sizes.values()) // 4), dtype=torch.int64, device=like.device)
        self._kept = [like.new_empty(size) for size in sizes.values()]
        left = dict(zip(self._rates, self._kept, strict=True))
        self._masks = []
        for network, times in self._passes:
            if not network.dropout:
                self._masks.append(None)
                continue
            size, rest = self._size(network, times), left[network.dropout]
            self._masks.append(_activations(rest[:size], (2, times * batch_size, network.hidden1.out_features)))
            left[network.dropout] = rest[size:]

    def _size(self, network: Perceptron, times: int) -> int:
        return 2 * times * self._batch_size * network.hidden1.out_features


class Gradients:
    """Memory for the gradients of a network's weights; `tensors` has them in the order of its parameters."""

    def __init__(self, network: Perceptron) -> None:
        layers = network.hidden1, network.hidden2, network.output
        self.weights = [torch.empty_like(layer.weight, requires_grad=False) for layer in layers]
        self.hidden_biases = self.weights[0].new_empty(2, len(self.weights[0]))
        self.output_bias = torch.empty_like(network.output.bias, requires_grad=False)
        biases = *self.hidden_biases, self.output_bias
        self.tensors = [tensor for layer in zip(self.weights, biases, strict=True) for tensor in layer]


def first_layer(network: Perceptron, inputs: Tensor) -> Tensor:
    """The first hidden layer before dropout: inputs (B, I) -> (B, H)."""
    return _affine(network.hidden1, inputs, relu=True)


def forward(
    network: Perceptron, inputs: Tensor, masks: Tensor | None = None, *, first: Tensor | None = None
) -> tuple[Tensor, Pass]:
    """Inputs (B, I) -> outputs (B, O), and what `backward` needs.

    `masks` (2, B, H) are of dropout, None for none; `first` is `first_layer` of these inputs if it is known.
    """
    hidden1 = first_layer(network, inputs) if first is None else first
    if masks is None:
        hidden2 = _affine(network.hidden2, hidden1, relu=True)
        return _affine(network.output, hidden2), Pass(inputs, hidden1, hidden2, 1.0)
    # Dropout comes before ReLU, and what it keeps is scaled; the factors are not negative, so their order makes no difference.
    scale = 1 / (1 - network.dropout)
    hidden1 = hidden1 * masks[0] if first is not None else hidden1.mul_(masks[0])
    hidden2 = _affine(network.hidden2, hidden1, scale, relu=True).mul_(masks[1])
    return _affine(network.output, hidden2, scale), Pass(inputs, hidden1, hidden2, scale)


def backward(network: Perceptron, of: Pass, gradient: Tensor, into: Gradients | None) -> Tensor:
    """The gradient of a loss with respect to the first layer (B, H), from that with respect to the outputs (B, O).

    The weights' gradients are written `into` memory of their own; None leaves them out.
    """
    both = _activations(of.hidden1.new_empty(2 * of.hidden1.numel()), (2, *of.hidden1.shape))
    _before(network.output, gradient, of.hidden2, of.scale, out=both[1])
    _before(network.hidden2, both[1], of.hidden1, of.scale, out=both[0])
    if into is not None:
        torch.mm(both[0].t(), of.inputs, out=into.weights[0])
        into.weights[1].addmm_(both[1].t(), of.hidden1, beta=0, alpha=of.scale)
        into.weights[2].addmm_(gradient.t(), of.hidden2, beta=0, alpha=of.scale)
        torch.sum(both, 1, out=into.hidden_biases)
        torch.sum(gradient, 0, out=into.output_bias)
    return both[0]


def input_gradient(network: Perceptron, first: Tensor) -> Tensor:
    """The gradient with respect to the inputs (B, I), from that with respect to the first layer (B, H)."""
    return first @ network.hidden1.weight


def add_gradient_penalty(network: Perceptron, of: Pass, num: int, weight: float, into: Gradients) -> None:
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
    into.weights[0].addmm_(above1.t(), slope, alpha=share)
    into.weights[1].addmm_(above2.t(), below1, alpha=share)
    into.weights[2].add_(below2.sum(0, keepdim=True), alpha=share)


def unit_by_unit(like: Tensor) -> bool:
    """Whether activations on this tensor's device, of its type, lie unit by unit; bfloat16 is multiplied by other kernels."""
    return like.device.type == "cpu" and like.dtype != torch.bfloat16


def _activations(memory: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Memory as activations of two layers (2, B, H), in the order that the products take."""
    layers, batch_size, units = shape
    if unit_by_unit(memory):
        return memory.view(layers, units, batch_size).transpose(1, 2)
    return memory.view(shape)


def _affine(layer: nn.Linear, x: Tensor, scale: float = 1.0, *, relu: bool = False) -> Tensor:
    """x (B, I) -> scale x W^T + b (B, O), cut off below 0 in the same kernel if `relu`."""
    product = torch._addmm_activation if relu else torch.addmm
    if unit_by_unit(x):
        return product(layer.bias[:, None], layer.weight, x.t(), alpha=scale).t()
    return product(layer.bias, x, layer.weight.t(), alpha=scale)


def _before(layer: nn.Linear, gradient: Tensor, hidden: Tensor, scale: float, *, out: Tensor) -> None:
    """From the gradient with respect to a layer's outputs (B, O), that before dropout and ReLU of its inputs (B, I)."""
    if unit_by_unit(out):
        out.t().addmm_(layer.weight.t(), gradient.t(), beta=0, alpha=scale)
    else:
        out.addmm_(gradient, layer.weight, beta=0, alpha=scale)
    # An activation is above zero where it was neither dropped nor cut off.
    torch.ops.aten.threshold_backward.grad_input(out, hidden, 0, grad_input=out)
