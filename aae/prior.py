"""The Gaussian prior that the codes are taught to follow."""

import torch
from torch import Tensor


def sample_prior(
    num_samples: int,
    latent_dim: int,
    std: float,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw codes (num_samples, latent_dim) from N(0, std^2 I), from `generator` or else the device's own."""
    codes = torch.empty(num_samples, latent_dim, device=device, dtype=dtype)
    return codes.normal_(0.0, std, generator=generator)
