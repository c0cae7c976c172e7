"""The passes written out, against torch's autograd in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aae.backprop import add_gradient_penalty, backward, dropout_masks, first_layer, forward, loss_and_gradient
from aae.networks import Perceptron


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_both_passes_equal_autograd(rate: float) -> None:
    """Outputs and every gradient agree with autograd's to rounding, with the same dropout masks."""
    torch.manual_seed(0)
    network = Perceptron(7, 33, 3, rate).double()
    inputs = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    target = torch.rand(5, 3, dtype=torch.float64)

    torch.manual_seed(1)
    masks = dropout_masks(torch.empty(5, 33, dtype=torch.float64), 2, rate) if rate else torch.ones(2, 1, 1)
    hidden1 = F.relu(network.hidden1(inputs) * masks[0])
    expected = network.output(F.relu(network.hidden2(hidden1) * masks[1]))
    loss = F.mse_loss(expected, target)
    expected_gradients = torch.autograd.grad(loss, [inputs, *network.parameters()])

    with torch.no_grad():
        torch.manual_seed(1)
        outputs, of = forward(network, inputs)
        value, gradient = loss_and_gradient(lambda out: F.mse_loss(out, target), outputs, torch.float64)
        gradients = [torch.full_like(p, torch.nan) for p in network.parameters()]
        input_gradient = backward(network, of, gradient, gradients) @ network.hidden1.weight
    for ours, theirs in zip(
        (outputs, value, input_gradient, *gradients), (expected, loss, *expected_gradients), strict=True
    ):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_gradient_penalty_equals_autograds_second_derivatives(rate: float) -> None:
    """R1 over the first inputs of a pass, with its dropout masks, added to what was there."""
    torch.manual_seed(0)
    network = Perceptron(3, 33, 1, rate).double()
    inputs = torch.randn(10, 3, dtype=torch.float64)

    torch.manual_seed(1)
    masks = dropout_masks(torch.empty(10, 33, dtype=torch.float64), 2, rate) if rate else torch.ones(2, 10, 33)
    real = inputs[:6].clone().requires_grad_()
    hidden1 = F.relu(network.hidden1(real) * masks[0][:6])
    outputs = network.output(F.relu(network.hidden2(hidden1) * masks[1][:6]))
    (slope,) = torch.autograd.grad(outputs.sum(), real, create_graph=True)
    penalty = 0.7 / 2 * slope.square().sum(1).mean()
    expected = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)

    with torch.no_grad():
        torch.manual_seed(1)
        _, of = forward(network, inputs)
        gradients = [torch.ones_like(p) for p in network.parameters()]
        add_gradient_penalty(network, of, 6, 0.7, gradients)
    for ours, theirs in zip(gradients, expected, strict=True):
        added = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours - 1, added, rtol=1e-9, atol=1e-12)


def test_a_known_first_layer_saves_its_product_only() -> None:
    """With the first product handed in, the outputs are the same, and so is what is handed in."""
    network = Perceptron(7, 33, 3, 0.25)
    inputs = torch.randn(5, 7)
    with torch.no_grad():
        first = first_layer(network, inputs)
        before = first.clone()
        for dropout in (False, True):
            torch.manual_seed(2)
            alone, _ = forward(network, inputs, dropout=dropout)
            torch.manual_seed(2)
            shared, _ = forward(network, inputs, dropout=dropout, first=first)
            assert torch.equal(alone, shared)
            assert torch.equal(first, before)
        assert torch.equal(forward(network, inputs, dropout=False)[0], network.eval()(inputs))


@pytest.mark.parametrize(("rate", "dtype"), [(0.25, torch.float32), (0.20, torch.float32), (0.20, torch.bfloat16)])
def test_masks_drop_at_their_rate_and_keep_the_mean(rate: float, dtype: torch.dtype) -> None:
    """Values are 0 and 1 / (1 - rate); every place in a random word drops at the rate; neighbours and masks are independent."""
    torch.manual_seed(3)
    masks = dropout_masks(torch.empty(1000, 1000, dtype=dtype), 2, rate)
    kept = torch.tensor(1 / (1 - rate), dtype=dtype)
    assert set(masks.unique().tolist()) == {0.0, kept.item()}
    dropped = (masks == 0).double()

    def assert_rate(part: Tensor, expected: float) -> None:
        sigma = (expected * (1 - expected) / part.numel()) ** 0.5
        assert abs(part.mean().item() - expected) < 4.5 * sigma

    for place in range(4):
        assert_rate(dropped.view(-1, 4)[:, place], rate)
    assert_rate(dropped[0] * dropped[1], rate**2)
    for distance in (1, 2, 3, 4, 1000):
        assert_rate(dropped[0].flatten()[distance:] * dropped[0].flatten()[:-distance], rate**2)
