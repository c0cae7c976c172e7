"""The lecture's networks, losses, prior and lattice."""

import io
import math

import pytest
import torch
from PIL import Image

from aae.lattice import Lattice, decode_picture
from aae.losses import cross_entropy, discriminator_loss, wrongness
from aae.networks import AdversarialAutoencoder, Decoder, Perceptron
from aae.prior import sample_prior
from job.results.pictures import lattice_png


def test_networks_have_the_sizes_of_the_lecture() -> None:
    """784-1000-1000-2, its mirror, and 2-1000-1000-1."""
    shapes = {
        name: tuple(p.shape) for name, p in AdversarialAutoencoder(2, 1000).named_parameters() if "weight" in name
    }
    assert shapes == {
        "encoder.hidden1.weight": (1000, 784),
        "encoder.hidden2.weight": (1000, 1000),
        "encoder.output.weight": (2, 1000),
        "decoder.hidden1.weight": (1000, 2),
        "decoder.hidden2.weight": (1000, 1000),
        "decoder.output.weight": (784, 1000),
        "discriminator.hidden1.weight": (1000, 2),
        "discriminator.hidden2.weight": (1000, 1000),
        "discriminator.output.weight": (1, 1000),
    }


@pytest.mark.parametrize(("network", "rate"), [("encoder", 0.25), ("decoder", 0.25), ("discriminator", 0.20)])
def test_dropout_keeps_the_lectures_share_and_scales_it(network: str, rate: float) -> None:
    """A hidden unit is dropped at the lecture's rate, the others are scaled by 1 / (1 - rate), and eval drops none."""
    torch.manual_seed(0)
    net: Perceptron = getattr(AdversarialAutoencoder(2, 400), network)
    torch.nn.init.zeros_(net.hidden1.weight)
    torch.nn.init.ones_(net.hidden1.bias)  # every unit of the first layer is 1 before its dropout
    seen: list[torch.Tensor] = []
    net.hidden2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.zeros(500, net.hidden1.in_features)
    net(x)
    kept = seen[0] != 0
    assert abs(kept.float().mean().item() - (1 - rate)) < 0.005  # 200,000 units: 5 standard errors
    torch.testing.assert_close(seen[0][kept], torch.full((int(kept.sum()),), 1 / (1 - rate)))
    net.eval()(x)
    assert (seen[1] == 1).all()


def test_dropout_comes_before_the_relu_and_never_on_the_output() -> None:
    """A hidden unit that is negative stays zero, and with all hidden units dropped the output is its bias, undropped."""
    net = Perceptron(3, 50, 4, dropout=1.0)
    torch.testing.assert_close(net(torch.rand(7, 3)), net.output.bias.expand(7, 4))


def test_losses_are_the_lectures_formulas() -> None:
    """The logit forms equal the lecture's formulas in double precision, where those can be computed."""
    torch.manual_seed(1)
    real, fake = torch.randn(2, 300, 1, dtype=torch.float64) * 4
    x, logits = torch.rand(300, 784, dtype=torch.float64), torch.randn(300, 784, dtype=torch.float64)
    lecture = -torch.mean(torch.log(torch.sigmoid(real)) + torch.log(1 - torch.sigmoid(fake)))
    torch.testing.assert_close(discriminator_loss(real, fake), lecture)
    torch.testing.assert_close(wrongness(fake, -1.0)[0], -torch.log(torch.sigmoid(fake)))
    p = torch.sigmoid(logits)
    torch.testing.assert_close(cross_entropy(logits, x)[0], -(x * p.log() + (1 - x) * (1 - p).log()))


def test_the_derivatives_are_those_of_the_losses() -> None:
    """Sigmoid minus target, as autograd finds it; of an adversary, its sign times how wrong it is."""
    torch.manual_seed(2)
    logits, targets = (
        (torch.randn(50, 7, dtype=torch.float64) * 5).requires_grad_(),
        torch.rand(50, 7, dtype=torch.float64),
    )
    signs = torch.where(targets > 0.5, 1.0, -1.0)
    answers, wrong = wrongness(logits, signs)
    for terms, derivative in (cross_entropy(logits, targets), (answers, signs * wrong)):
        (expected,) = torch.autograd.grad(terms.sum(), logits)
        torch.testing.assert_close(derivative.detach(), expected)


def test_losses_and_gradients_stay_finite_where_the_lectures_do_not() -> None:
    """At logits of +-200 the sigmoid is exactly 0 or 1 and its logarithm infinite; ours is the exact value."""
    d = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    loss = discriminator_loss(d, d)
    assert loss.item() == pytest.approx(200.0)
    (gradient,) = torch.autograd.grad(loss, d)
    assert gradient.isfinite().all()
    assert torch.log(1 - torch.sigmoid(d)).isinf().any()


def test_an_undecided_discriminator_reads_as_two_ln_2_and_ln_2() -> None:
    """The reference lines that users compare their losses with."""
    undecided = torch.zeros(5, 1)
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert wrongness(undecided, -1.0)[0].mean().item() == pytest.approx(math.log(2))


def test_the_prior_is_gaussian_of_the_given_std() -> None:
    """Mean 0, the standard deviation asked for, independent coordinates, and the same draw from the same generator."""
    z = sample_prior(200_000, 3, 5.0, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), 25 * torch.eye(3), atol=0.5, rtol=0)
    assert torch.equal(z, sample_prior(200_000, 3, 5.0, generator=torch.Generator().manual_seed(3)))


def test_the_lattice_is_a_map_of_the_latent_plane() -> None:
    """Row = second coordinate with +extent on top, column = first with -extent on the left, the rest 0, even steps."""
    codes = Lattice(5, 2.0, "unit", 4, 1.0).codes().view(5, 5, 4)
    assert codes[0, 0].tolist() == [-2, 2, 0, 0]
    assert codes[4, 4].tolist() == [2, -2, 0, 0]
    assert codes[1, 3].tolist() == [1, 1, 0, 0]
    assert Lattice(1, 2.0, "unit", 2, 1.0).codes().tolist() == [[0, 0]]


class _Corners(Decoder):
    """Inks pixel 0 of a cell by the first coordinate and pixel 27 by the second."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(x), 784), -100.0)
        logits[:, 0], logits[:, 27] = x[:, 0] * 100, x[:, 1] * 100
        return logits


def test_the_picture_has_dark_ink_on_white_in_the_maps_order() -> None:
    """Each cell of the picture is the decoded code of its place: 0 where the decoder says ink, 255 where paper."""
    picture = decode_picture(_Corners(2, 4), Lattice(3, 1.0, "unit", 2, 1.0).codes())
    assert picture.shape == (84, 84)
    assert picture[0, 56 + 0] == 0  # top right: first coordinate +1
    assert picture[0, 0] == 255  # top left: first coordinate -1
    assert picture[0, 27] == 0  # top left: second coordinate +1
    assert picture[56, 27] == 255  # bottom left: second coordinate -1
    assert picture[28, 28] == round(255 * 0.5)  # the middle: both 0
    assert (decode_picture(_Corners(2, 4), torch.zeros(3, 2))[28:, 28:] == 255).all()  # no fourth code: white


def test_a_quantile_lattice_holds_the_same_mass_in_each_cell() -> None:
    """Its coordinates are the medians of slices of equal mass, in the prior's scale; what it shows is written down."""
    lattice = Lattice(10, 1.0, "quantile", 3, 5.0)
    axis = lattice.axis()
    torch.testing.assert_close(torch.special.ndtr(axis / 5), (torch.arange(10) + 0.5) / 10)
    codes = lattice.codes().view(10, 10, 3)
    assert torch.equal(codes[3, :, 0], axis)
    assert torch.equal(codes[:, 3, 1], axis.flip(0))
    assert (codes[..., 2] == 0).all()
    assert lattice.texts() == {
        "extent": "8.224268",
        "latent_dim": "3",
        "mode": "quantile",
        "plane": "column: coordinate 1, row: coordinate 2, all others 0",
    }
    assert Lattice(10, 1.5, "unit", 2, 5.0).texts() == {"extent": "1.5", "latent_dim": "2", "mode": "unit"}


def test_drawing_touches_neither_the_random_state_nor_the_mode() -> None:
    """A lattice may be drawn at any time without changing training; equal pictures are equal files."""
    decoder = Decoder(2, 16)
    before = torch.get_rng_state()
    lattice = Lattice(4, 1.0, "unit", 2, 1.0)
    picture = decode_picture(decoder, lattice.codes())
    assert torch.equal(before, torch.get_rng_state())
    assert decoder.training
    files = [lattice_png(decoder, lattice, 7) for _ in range(2)]
    assert files[0] == files[1]
    with Image.open(io.BytesIO(files[0])) as image:
        assert list(image.get_flattened_data()) == picture.flatten().tolist()
