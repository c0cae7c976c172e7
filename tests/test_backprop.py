"""The passes written out, against torch's autograd in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aae.backprop import Dropout, Gradients, add_gradient_penalty, backward, first_layer, forward, input_gradient
from aae.networks import Perceptron


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_both_passes_equal_autograd(rate: float) -> None:
    """Outputs and every gradient agree with autograd's to rounding, with the same dropout masks."""
    torch.manual_seed(0)
    network = Perceptron(7, 33, 3, rate).double()
    inputs = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    target = torch.rand(5, 3, dtype=torch.float64)

    (masks,) = Dropout([(network, 1)]).draw(5)
    factors = masks / (1 - rate) if masks is not None else torch.ones(2, 1, 1)
    hidden1 = F.relu(network.hidden1(inputs) * factors[0])
    expected = network.output(F.relu(network.hidden2(hidden1) * factors[1]))
    loss = F.mse_loss(expected, target)
    expected_gradients = torch.autograd.grad(loss, [inputs, *network.parameters()])

    with torch.no_grad():
        outputs, of = forward(network, inputs, masks)
        into = Gradients(network)
        for tensor in into.tensors:
            tensor.fill_(torch.nan)
        first = backward(network, of, 2 * (outputs - target) / target.numel(), into)
    gradients = input_gradient(network, first), *into.tensors
    for ours, theirs in zip((outputs, *gradients), (expected, *expected_gradients), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_gradient_penalty_equals_autograds_second_derivatives(rate: float) -> None:
    """R1 over the first inputs of a pass, with its dropout masks, added to what was there."""
    torch.manual_seed(0)
    network = Perceptron(3, 33, 1, rate).double()
    inputs = torch.randn(10, 3, dtype=torch.float64)

    (masks,) = Dropout([(network, 1)]).draw(10)
    factors = masks / (1 - rate) if masks is not None else torch.ones(2, 10, 33)
    real = inputs[:6].clone().requires_grad_()
    hidden1 = F.relu(network.hidden1(real) * factors[0][:6])
    outputs = network.output(F.relu(network.hidden2(hidden1) * factors[1][:6]))
    (slope,) = torch.autograd.grad(outputs.sum(), real, create_graph=True)
    penalty = 0.7 / 2 * slope.square().sum(1).mean()
    expected = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)

    with torch.no_grad():
        _, of = forward(network, inputs, masks)
        into = Gradients(network)
        for tensor in into.tensors:
            tensor.fill_(1)
        add_gradient_penalty(network, of, 6, 0.7, into)
    for ours, theirs in zip(into.tensors, expected, strict=True):
        added = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours - 1, added, rtol=1e-9, atol=1e-12)


def test_a_known_first_layer_saves_its_product_only() -> None:
    """With the first product handed in, the outputs are the same, and so is what is handed in."""
    network = Perceptron(7, 33, 3, 0.25)
    inputs = torch.randn(5, 7)
    with torch.no_grad():
        first = first_layer(network, inputs)
        before = first.clone()
        for masks in (None, *Dropout([(network, 1)]).draw(5)):
            alone, _ = forward(network, inputs, masks)
            shared, _ = forward(network, inputs, masks, first=first)
            assert torch.equal(alone, shared)
            assert torch.equal(first, before)
        torch.testing.assert_close(forward(network, inputs)[0], network.eval()(inputs))


@pytest.mark.parametrize(("rate", "dtype"), [(0.25, torch.float32), (0.20, torch.float32), (0.20, torch.bfloat16)])
def test_masks_drop_at_their_rate(rate: float, dtype: torch.dtype) -> None:
    """Values are 0 and 1; every place in a random word drops at the rate; neighbours and masks are independent."""
    torch.manual_seed(3)
    (masks,) = Dropout([(Perceptron(1, 1000, 1, rate).to(dtype), 1)]).draw(1000)
    assert masks is not None
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    dropped = (masks.transpose(1, 2).contiguous() == 0).double()

    def assert_rate(part: Tensor, expected: float) -> None:
        sigma = (expected * (1 - expected) / part.numel()) ** 0.5
        assert abs(part.mean().item() - expected) < 4.5 * sigma

    for place in range(4):
        assert_rate(dropped.view(-1, 4)[:, place], rate)
    assert_rate(dropped[0] * dropped[1], rate**2)
    for distance in (1, 2, 3, 4, 1000):
        assert_rate(dropped[0].flatten()[distance:] * dropped[0].flatten()[:-distance], rate**2)


def test_each_pass_has_masks_of_its_own() -> None:
    """Of its network's rate and its number of rows, none twice; a draw replaces the one before, another batch size has its own."""
    torch.manual_seed(4)
    often, seldom, never = (Perceptron(2, 64, 2, rate) for rate in (0.5, 0.1, 0.0))
    dropout = Dropout([(often, 1), (seldom, 2), (never, 1), (often, 1)])
    for batch_size in (50, 20):
        first, double, none, last = dropout.draw(batch_size)
        assert none is None
        assert first is not None
        assert double is not None
        assert last is not None
        assert [tuple(masks.shape) for masks in (first, double, last)] == [(2, n * batch_size, 64) for n in (1, 2, 1)]
        assert (first == 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
        assert (double == 0).double().mean().item() == pytest.approx(0.1, abs=0.03)
        assert not torch.equal(first, last)
        before = first.clone()
        assert dropout.draw(batch_size)[0] is first
        assert not torch.equal(first, before)
