"""Pictures of decoded codes from a run's weights: its lattice, or samples of the prior."""

from dataclasses import replace
from typing import Any

import torch

from aae.lattice import decode_picture
from aae.prior import sample_prior
from job.results.pictures import lattice_of, lattice_png, png
from job.results.weights import Weights


def sample_lattice(weights: Weights, **changes: Any) -> bytes:
    """A lattice as a PNG: the run's own, but for `changes` (size, extent, mode) that are not None."""
    chosen = {name: value for name, value in changes.items() if value is not None}
    return lattice_png(weights.model.decoder, replace(lattice_of(weights.settings), **chosen), weights.step)


def random_samples(weights: Weights, num_samples: int, seed: int) -> bytes:
    """Decoded prior samples as a PNG, ceil(sqrt(num_samples)) a side; the same seed gives the same ones."""
    settings = weights.settings
    generator = torch.Generator().manual_seed(seed)
    codes = sample_prior(num_samples, settings.latent_dim, settings.prior_std, generator=generator)
    texts = {"step": str(weights.step), "latent_dim": str(settings.latent_dim), "mode": "random", "seed": str(seed)}
    return png(decode_picture(weights.model.decoder, codes), texts)
