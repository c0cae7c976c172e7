"""How good codes and reconstructions are: figures that do not depend on the discriminator that was trained with them.

Codes are given in units of the prior's standard deviation throughout: a perfect encoder's are samples of N(0, I).
N, M: numbers of codes; Z: code dimensions. Random numbers come from generators of their own, never from torch's.
"""

import torch
from torch import Tensor

from aae.classifier import fit_classifier

CELLS = 10  # a side of the grid in which empty cells are counted
_ROWS = 1000  # codes compared with all others at once


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two samples (N, Z) and (M, Z): 0 in the mean if they are of one distribution.

    In the unit of the codes; unbiased, so it may be slightly negative (Szekely and Rizzo, 2013).
    """
    n, m = len(x), len(y)
    within = _sum_of_distances(x, x) / (n * (n - 1)) + _sum_of_distances(y, y) / (m * (m - 1))
    return 2 * _sum_of_distances(x, y) / (n * m) - within


def _sum_of_distances(x: Tensor, y: Tensor) -> float:
    # The form by a matrix product loses what is near: a point would be 0.001 away from itself.
    exact = "donot_use_mm_for_euclid_dist"
    return sum(float(torch.cdist(rows, y, compute_mode=exact).sum(dtype=torch.float64)) for rows in x.split(_ROWS))


def energy_distance_null(n: int, m: int, latent_dim: int, quantile: float = 0.99) -> float:
    """What `energy_distance` stays below with probability `quantile` if both samples are of N(0, I).

    It is then distributed as (1/n + 1/m) sum_i l_i (g_i^2 - 1) with standard normal g_i and the eigenvalues l_i of the
    centred distances (the spectrum method of Gretton et al., 2009, for the kernel -|x - y|), here those of 1,000 samples.
    """
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1000, latent_dim, generator=generator)
    kernel = -torch.cdist(sample, sample, compute_mode="donot_use_mm_for_euclid_dist")
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    eigenvalues = (torch.linalg.eigvalsh(centred) / len(sample)).flip(0)[:300]
    squares = torch.randn(10_000, len(eigenvalues), generator=generator).square_()
    return float((squares - 1).mv(eigenvalues).quantile(quantile)) * (1 / n + 1 / m)


def c2st_accuracy(x: Tensor, y: Tensor, seed: int) -> float:
    """How often a small classifier, trained on one half of two samples, tells in the other half which one a code is of.

    The classifier two-sample test (Lopez-Paz and Oquab, 2017): 0.5 if it cannot tell, with a standard deviation of
    0.5 / sqrt(number of codes in that half); both samples (N, Z) count alike.
    """
    n = min(len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    x, y = (sample[torch.randperm(len(sample), generator=generator).to(sample.device)[:n]] for sample in (x, y))
    half = n // 2
    labels = torch.arange(2, device=x.device).repeat_interleave(half)
    classifier = fit_classifier(
        torch.cat((x[:half], y[:half])), labels, 2, hidden_dim=32, steps=150, lr=0.02, seed=seed
    )
    tested = torch.cat((x[half : 2 * half], y[half : 2 * half]))
    return float((classifier(tested).argmax(1) == labels).float().mean())


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
