"""The figures of an evaluation, each on samples whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from aae import metrics
from aae.classifier import fit_classifier
from aae.parzen import SIGMAS, parzen_log_likelihood


def _normal(num: int, dim: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


def _with_a_hole(num: int, radius: float) -> Tensor:
    codes = _normal(2 * num, seed=7)
    return codes[codes.norm(dim=1) > radius][:num]


COLLAPSED = _normal(2000, seed=8) * torch.tensor([1.0, 0.05])
WRONG = {
    "shifted": _normal(2000, seed=1) + 0.2,
    "scaled": _normal(2000, seed=2) * 1.25,
    "with a hole": _with_a_hole(2000, 0.5),
    "collapsed": COLLAPSED,
}


@pytest.mark.parametrize("dim", [2, 8])
def test_equal_samples_stay_within_the_null_band_as_often_as_it_says(dim: int) -> None:
    """Of 300 normal samples 99 % have an energy distance below the computed quantile, and 0 in the mean."""
    null = metrics.energy_distance_null(300, dim)
    found = [metrics.energy_distance(_normal(300, dim, i)) for i in range(300)]
    above = sum(distance > null for distance in found)
    assert 0 <= above <= 9, f"{above} of 300 above {null}"  # 3 expected; 10 or more once in 900 times
    assert sorted(found)[-15] > null / 3, "the band is too wide to find anything"
    assert abs(sum(found) / 300) < 0.15 * null


def test_the_energy_distance_of_a_shift_is_what_the_formula_gives() -> None:
    """In one dimension N(0, 1) and N(m, 1) are 2 E|x-y| - 2 E|x-x'| apart, both mean absolute normals of variance 2."""
    shift = 1.0
    mean_abs = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    expected = 2 * mean_abs - 2 * 2 / math.sqrt(math.pi)
    assert metrics.energy_distance(_normal(8000, 1, 1) + shift) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("dim", [2, 3, 8, 100])
def test_the_mean_distance_from_the_prior_is_that_of_many_samples(dim: int) -> None:
    """At the origin it has a closed form; far away it is the distance itself, a little more."""
    far = torch.zeros(4, dim)
    far[:, 0] = torch.tensor([0.0, 1.0, 4.0, 25.0])
    found = metrics._mean_distances_from_prior(far)
    assert found[0].item() == pytest.approx(math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2)))
    samples = _normal(40_000, dim)
    for code, distance in zip(far, found, strict=True):
        assert distance.item() == pytest.approx((samples - code).norm(dim=1).mean().item(), rel=0.01)


def test_the_energy_distance_keeps_small_distances() -> None:
    """Points near each other and far from the origin, where the form by a matrix product would lose what is between them."""
    apart = torch.tensor([[20.0, 20.0], [20.0, 20.001]])
    same = torch.tensor([[20.0, 20.0], [20.0, 20.0]])
    gain = 2 * (metrics._mean_distances_from_prior(apart).mean() - metrics._mean_distances_from_prior(same).mean())
    assert metrics.energy_distance(apart) - metrics.energy_distance(same) == pytest.approx(
        gain.item() - 0.001, abs=1e-5
    )


@pytest.mark.parametrize("what", WRONG)
def test_wrong_codes_are_told_from_the_prior(what: str) -> None:
    """A shift, a scale, a hole and a lost dimension each leave the null band, or leave cells empty."""
    codes = WRONG[what]
    beyond = metrics.energy_distance(codes) > metrics.energy_distance_null(2000, 2)
    assert beyond or metrics.empty_cells(codes) > 0


@pytest.mark.parametrize("codes", [_with_a_hole(2000, 1.0), COLLAPSED], ids=["with a hole", "collapsed"])
def test_a_fresh_classifier_tells_wrong_codes(codes: Tensor) -> None:
    """Also a hole in the middle, which no linear classifier sees."""
    assert metrics.c2st_accuracy(codes, _normal(2000, seed=9), 0) > 0.6


def test_a_fresh_classifier_cannot_tell_equal_samples() -> None:
    """Within four standard deviations of one half; the same seed gives the same figure, without torch's random state."""
    state = torch.get_rng_state()
    accuracy = metrics.c2st_accuracy(_normal(2000), _normal(2000, seed=1), 0)
    assert abs(accuracy - 0.5) < 4 * 0.5 / math.sqrt(2000)
    assert metrics.c2st_accuracy(_normal(2000), _normal(2000, seed=1), 0) == accuracy
    assert torch.equal(torch.get_rng_state(), state)


def test_moments_are_those_of_the_samples() -> None:
    """Mean by dimension, eigenvalues in rising order: of a collapsed sample the first is almost 0."""
    mean, eigenvalues = metrics.code_moments(_normal(20_000) * torch.tensor([2.0, 0.5]) + torch.tensor([3.0, 0.0]))
    assert mean == pytest.approx([3, 0], abs=0.05)
    assert eigenvalues == pytest.approx([0.25, 4], rel=0.05)
    assert metrics.code_moments(COLLAPSED)[1][0] == pytest.approx(0.0025, rel=0.1)


def test_empty_cells_are_counted_by_equal_mass() -> None:
    """None are empty of many samples of the prior; one code fills one; a half plane leaves half of them."""
    codes = _normal(5000)
    assert metrics.empty_cells(codes) == 0
    assert metrics.empty_cells(torch.zeros(7, 2)) == 99
    assert metrics.empty_cells(codes[codes[:, 0] > 0]) == 50
    assert metrics.empty_cells(torch.tensor([[-40.0, -40.0], [40.0, 40.0]])) == 98


def _blobs(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes around three corners of a triangle, far apart."""
    labels = torch.arange(num) % 3
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    return corners[labels] + _normal(num, seed=seed), labels


def test_neighbours_and_probe_know_classes_that_are_apart() -> None:
    """All right where the classes are apart; by chance alone where the labels mean nothing."""
    codes, labels = _blobs(300, 0)
    train = _blobs(900, 1)
    assert metrics.knn_accuracy(codes, labels, *train) == 1
    assert metrics.linear_probe_accuracy(codes, labels, *train) == 1
    shuffled = train[1][torch.randperm(900, generator=torch.Generator().manual_seed(0))]
    assert metrics.knn_accuracy(codes, labels, train[0], shuffled) < 0.5
    assert metrics.linear_probe_accuracy(codes, labels, train[0], shuffled) < 0.5


def test_neighbours_know_rings_which_a_linear_probe_does_not() -> None:
    """Two rings around each other: the two figures measure different things."""
    labels = torch.arange(600) % 2
    codes = torch.nn.functional.normalize(_normal(600)) * (1 + labels)[:, None]
    assert metrics.knn_accuracy(codes[:200], labels[:200], codes[200:], labels[200:]) == 1
    assert metrics.linear_probe_accuracy(codes[:200], labels[:200], codes[200:], labels[200:]) < 0.65


def test_a_classifier_with_a_hidden_layer_learns_from_random_batches() -> None:
    """Rings again, by batches: what the classifier of decoded digits does."""
    labels = torch.arange(600) % 2
    codes = torch.nn.functional.normalize(_normal(600)) * (1 + labels)[:, None]
    classifier = fit_classifier(codes, labels, 2, hidden_dim=32, steps=300, lr=0.02, seed=0, batch_size=50)
    assert (classifier(codes).argmax(1) == labels).float().mean() > 0.98


def test_the_parzen_estimate_is_the_density_that_it_says() -> None:
    """One sample: a single normal density; the best of the ten widths is chosen on the validation images."""
    num_pixels = 784
    sigma = SIGMAS[3]
    sample = torch.full((1, num_pixels), 0.5)
    generator = torch.Generator().manual_seed(0)
    validation, test = (sample + sigma * torch.randn(50, num_pixels, generator=generator) for _ in range(2))
    expected = -0.5 * ((test - sample) / sigma).square().sum(1) - num_pixels * math.log(sigma * math.sqrt(2 * math.pi))
    mean, stderr = parzen_log_likelihood(sample, validation, test)
    assert mean == pytest.approx(float(expected.mean()), rel=1e-4)
    assert stderr == pytest.approx(float(expected.std(correction=0)) / math.sqrt(50), rel=1e-3)


def test_the_parzen_estimate_averages_over_samples() -> None:
    """Twice the same sample changes nothing; a second one far away halves the density: log 2 less."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(1, 784, generator=generator)
    images = sample + 0.1 * torch.randn(20, 784, generator=generator)
    one, _ = parzen_log_likelihood(sample, images, images)
    assert parzen_log_likelihood(sample.repeat(2, 1), images, images)[0] == pytest.approx(one, abs=1e-3)
    far = torch.cat((sample, sample + 100))
    assert parzen_log_likelihood(far, images, images)[0] == pytest.approx(one - math.log(2), abs=1e-3)
