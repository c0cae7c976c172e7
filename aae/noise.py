"""Noise on the codes that the decoder learns from."""

import torch
from torch import Tensor


def with_noise(codes: Tensor, share: float) -> Tensor:
    """Codes (B, Z) plus Gaussian noise whose standard deviation is `share` of their own; no random number at a share of 0.

    Their own is the root of their variance, averaged over the dimensions, and differentiable like the rest: spreading the
    codes spreads the noise as much and gains nothing, bringing images together that look alike does.
    """
    if not share:
        return codes
    variance = (codes - codes.mean(0)).square().mean()
    std = variance.clamp_min(torch.finfo(codes.dtype).tiny).sqrt()  # codes that are all the same have a gradient, of 0
    return codes + share * std * torch.randn_like(codes)
