"""How good codes and reconstructions are: figures that do not depend on the discriminator that was trained with them.

Codes are given in units of the prior's standard deviation throughout: a perfect encoder's are samples of N(0, I).
N, M: numbers of codes; Z: code dimensions. Codes lie on the CPU. Random numbers come from generators of their own, never from
torch's.
"""

import math

import torch
from torch import Tensor

from aae.classifier import fit_classifier

CELLS = 10  # a side of the grid in which empty cells are counted
_ROWS = 1000  # codes compared with all others at once
_ANGLES = 64  # at which an integral is taken
_FEATURES = 128  # of a fresh classifier


def energy_distance(codes: Tensor) -> float:
    """2 E|x - Y| - E|x - x'| - E|Y - Y'| of codes x (N, Z) and the prior Y ~ N(0, I): 0 in the mean if they are of it.

    In the unit of the codes; unbiased, so it may be slightly negative (Szekely and Rizzo, 2013). What the prior brings is
    computed, not sampled: half as many codes tell as much.
    """
    return float(_energy_distances(codes[None]))


def energy_distance_null(n: int, latent_dim: int, quantile: float = 0.99) -> float:
    """What `energy_distance` of n samples of the prior stays below with probability `quantile`.

    As 4,000 times 32 samples have it: apart from its scale, 1 / n, its distribution hardly depends on n.
    """
    few = 32
    samples = torch.randn(4000, few, latent_dim, generator=torch.Generator().manual_seed(0))
    found = torch.cat([_energy_distances(part) for part in samples.split(1000)])
    return float(found.quantile(quantile)) * few / n


def _energy_distances(samples: Tensor) -> Tensor:
    """The energy distance of each of R samples (R, N, Z), float64 (R,)."""
    num, dims = samples.shape[1:]
    # The form by a matrix product loses what is near: a point would be 0.001 away from itself.
    exact = "donot_use_mm_for_euclid_dist"
    parts = samples.split(_ROWS, 1)
    sums = sum(torch.cdist(rows, samples, compute_mode=exact).sum((1, 2), dtype=torch.float64) for rows in parts)
    of_prior = 2 * math.exp(math.lgamma((dims + 1) / 2) - math.lgamma(dims / 2))  # E|Y - Y'|
    return 2 * _mean_distances_from_prior(samples).mean(1) - sums / (num * (num - 1)) - of_prior


def _mean_distances_from_prior(codes: Tensor) -> Tensor:
    """E|x - Y| of each of the codes (..., Z), with Y ~ N(0, I); float64 (...).

    By |v| = 1 / (2 sqrt(pi)) times the integral of (1 - exp(-t v^2)) t^(-3/2) over t > 0, and t = tan^2(u) / 2, which leaves
    sqrt(2 / pi) times that of (1 - cos^Z(u) exp(-|x|^2 sin^2(u) / 2)) / sin^2(u) over 0 < u < pi / 2. There the midpoint rule
    converges exponentially: for |x| up to 30 all digits of float32 are right.
    """
    angles = (torch.arange(_ANGLES, dtype=torch.float64, device=codes.device) + 0.5) * (math.pi / 2 / _ANGLES)
    squares = angles.sin().square()
    kept = angles.cos() ** codes.shape[-1] * torch.exp(codes.double().square().sum(-1, keepdim=True) * (-0.5 * squares))
    return ((1 - kept) / squares).mean(-1) * math.sqrt(math.pi / 2)


def c2st_accuracy(x: Tensor, y: Tensor, seed: int) -> float:
    """How often a small classifier, trained on one half of two samples, tells in the other half which one a code is of.

    The classifier two-sample test (Lopez-Paz and Oquab, 2017): 0.5 if it cannot tell, with a standard deviation of
    0.5 / sqrt(number of codes in that half); both samples (N, Z) count alike. The classifier is a ridge regression on the codes
    and 128 random rectified sums of them (Rahimi and Recht, 2008): as good at telling as a trained hidden layer of 32, and
    better in many dimensions, in a thirtieth of its time.
    """
    n = min(len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    x, y = (sample[torch.randperm(len(sample), generator=generator)[:n]] for sample in (x, y))
    half, dims = n // 2, x.shape[1]
    weights = torch.randn(dims, _FEATURES, generator=generator) / math.sqrt(dims)
    biases = torch.randn(_FEATURES, generator=generator)

    def features(codes: Tensor) -> Tensor:
        return torch.cat((codes.new_ones(len(codes), 1), codes, (codes @ weights + biases).relu()), 1).double()

    labels = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(half)
    known = features(torch.cat((x[:half], y[:half])))
    penalty = torch.eye(known.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(known.T @ known + penalty, known.T @ labels)
    told = features(torch.cat((x[half : 2 * half], y[half : 2 * half]))) @ solution
    return float(((told > 0) == (labels > 0)).double().mean())


def code_moments(codes: Tensor) -> tuple[list[float], list[float]]:
    """Mean of codes (N, Z), a number a dimension, and the eigenvalues of their covariance in rising order; 0s and 1s at best."""
    eigenvalues: Tensor = torch.linalg.eigvalsh(torch.cov(codes.T.double().cpu()))
    return codes.double().mean(0).tolist(), eigenvalues.tolist()


def empty_cells(codes: Tensor) -> int:
    """Cells without a code among the 10 x 10 of equal prior mass: the grid of Phi(z), Phi the normal distribution function.

    For codes (N, 2). Of N codes of the prior each cell holds N / 100 on average.
    """
    cell = (torch.special.ndtr(codes) * CELLS).long().clamp(0, CELLS - 1)  # (N, 2)
    return CELLS * CELLS - len(torch.unique(cell[:, 0] * CELLS + cell[:, 1]))


def knn_accuracy(codes: Tensor, labels: Tensor, train_codes: Tensor, train_labels: Tensor, k: int = 10) -> float:
    """Share of codes (N, Z) whose label is the commonest among those of the k nearest of `train_codes` (M, Z)."""
    num_classes = int(train_labels.max()) + 1
    right = 0
    for rows, expected in zip(codes.split(_ROWS), labels.split(_ROWS), strict=True):
        nearest = torch.cdist(rows, train_codes).topk(k, largest=False).indices  # (rows, k)
        votes = torch.nn.functional.one_hot(train_labels[nearest], num_classes).sum(1)
        right += int((votes.argmax(1) == expected).sum())
    return right / len(codes)


def linear_probe_accuracy(codes: Tensor, labels: Tensor, train_codes: Tensor, train_labels: Tensor) -> float:
    """Share of codes (N, Z) whose label a multinomial logistic regression on `train_codes` (M, Z) gets right."""
    num_classes = int(train_labels.max()) + 1
    probe = fit_classifier(train_codes, train_labels, num_classes, hidden_dim=None, steps=300, lr=0.1, seed=0)
    return float((probe(codes).argmax(1) == labels).float().mean())
