"""The lecture's three losses, written on logits.

float32 sigmoid is exactly 1 from logit 16.64 on, where log(1 - sigmoid) is infinite and its gradient undefined.
On logits, -log sigmoid(d) = softplus(-d) and -log(1 - sigmoid(d)) = softplus(d): the same numbers, always finite.
"""

import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(logits: Tensor, images: Tensor) -> Tensor:
    """Mean binary cross entropy a pixel, in nats; both (B, X), `images` in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, images)


def discriminator_loss(prior_logits: Tensor, code_logits: Tensor) -> Tensor:
    """-mean(log D(prior) + log(1 - D(code))), in nats, from logits (B, 1); 2 ln 2 when D cannot tell.

    Goodfellow et al. 2014, eq. 1. With an optimal D it equals 2 ln 2 - 2 JSD(codes, prior).
    """
    return F.softplus(-prior_logits).mean() + F.softplus(code_logits).mean()


def generator_loss(code_logits: Tensor) -> Tensor:
    """-mean(log D(code)), in nats, from logits (B, 1): what the encoder lowers to fool D; ln 2 when D cannot tell."""
    return F.softplus(-code_logits).mean()
