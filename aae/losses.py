"""The lecture's losses and their derivatives, written on logits.

float32 sigmoid is exactly 1 from logit 16.64 on, where log(1 - sigmoid) is infinite and its gradient undefined.
On logits, -log sigmoid(d) = softplus(-d) and -log(1 - sigmoid(d)) = softplus(d): the same numbers, always finite.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """-t log p - (1 - t) log(1 - p) of each pair of p = sigmoid(logit) and target t in [0, 1], in nats; and its derivative, p - t.

    Its mean over images and pixels is the lecture's reconstruction loss.
    """
    return torch.addcmul(F.softplus(logits), targets, logits, value=-1), logits.sigmoid() - targets


def wrongness(logits: Tensor, signs: Tensor | float) -> tuple[Tensor, Tensor]:
    """-log(1 - w) of each answer's w, in nats, and w: the probability that D gives to what is not so; all of the logits' shape.

    `signs` are 1 where a code is right to be taken for one, -1 where a prior sample is wanted. The derivative with respect to a
    logit is its sign times w. D lowers the means over prior samples and over codes, whose sum is the lecture's
    discriminator loss (Goodfellow et al., 2014, eq. 1); Q lowers the mean over its codes where prior samples are wanted.
    """
    signed = logits * signs
    return F.softplus(signed), signed.sigmoid()


def discriminator_loss(prior_logits: Tensor, code_logits: Tensor) -> Tensor:
    """-mean(log D(prior) + log(1 - D(code))), in nats, from logits (B, 1); 2 ln 2 when D cannot tell.

    With an optimal D it equals 2 ln 2 - 2 JSD(codes, prior).
    """
    return wrongness(prior_logits, -1.0)[0].mean() + wrongness(code_logits, 1.0)[0].mean()
