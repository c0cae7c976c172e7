"""The Parzen window estimate of log-likelihood by which the paper judges its samples.

Protocol of Goodfellow et al., 2014, and Makhzani et al., 2015: a Gaussian kernel on each of 10,000 samples, its width
chosen on validation images among ten, the mean over the test images. It is for parity with the papers: 10,000 real
training images in the samples' place reach only 243 nats on MNIST, less than a good model.
"""

import math

import torch
from torch import Tensor

SIGMAS = torch.logspace(-1, 0, 10, dtype=torch.float64).tolist()
_ROWS = 250  # images compared with all samples at once


def parzen_log_likelihood(samples: Tensor, validation: Tensor, test: Tensor) -> tuple[float, float]:
    """Mean log-likelihood of test images (N, X) in nats, and its standard error, std / sqrt(N).

    The density is the mean of normal densities around samples (S, X); their sigma is the one of SIGMAS that is best for the
    mean over the validation images (V, X).
    """
    sigma = max(SIGMAS, key=lambda s: float(_log_densities(samples, validation, s).mean()))
    densities = _log_densities(samples, test, sigma)
    return float(densities.mean()), float(densities.std(correction=0)) / math.sqrt(len(test))


def _log_densities(samples: Tensor, images: Tensor, sigma: float) -> Tensor:
    """log p(x) of each image, float64 (N,)."""
    num_samples, num_pixels = samples.shape
    norm = math.log(num_samples) + num_pixels * math.log(sigma * math.sqrt(2 * math.pi))
    found = []
    for rows in images.split(_ROWS):
        squares = torch.cdist(rows, samples).square_().double()  # (rows, S), by one matrix product
        found.append(torch.logsumexp(squares.mul_(-0.5 / sigma**2), 1) - norm)
    return torch.cat(found)
