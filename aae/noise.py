"""Noise on the codes that the decoder learns from."""

from collections.abc import Callable

import torch
from torch import Tensor


def with_noise(codes: Tensor, share: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Codes (B, Z) plus Gaussian noise whose standard deviation is `share` of their own; no random number at a share of 0.

    Their own is the root of their variance, averaged over the dimensions, and part of what is learned from: spreading the
    codes spreads the noise as much and gains nothing, bringing images together that look alike does. The second result turns
    the gradient of a loss with respect to the noisy codes into that with respect to the codes; both (B, Z).
    """
    if not share:
        return codes, lambda gradient: gradient
    centred = codes - codes.mean(0)
    variance = centred.square().mean()
    # Codes that are all the same have a spread whose gradient is 0.
    std = variance.clamp_min(torch.finfo(codes.dtype).tiny).sqrt()
    noise = share * torch.randn(codes.shape, dtype=codes.dtype, device=codes.device)  # in one order, however codes lie

    def through(gradient: Tensor) -> Tensor:
        return gradient + centred * ((gradient * noise).sum() / (std * codes.numel()))

    return torch.addcmul(codes, noise, std), through
