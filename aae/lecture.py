"""The lecture's own training loop, as the lecture has it: the reference that the product's step must equal.

DataLoader, sigmoid and log, default Adam, and gradients zeroed between the phases, since the lecture describes two
separate passes. (The notebook published with it zeroes them once a step: its last update of Q then also carries the
gradients of the two losses before it, which drives the codes away from the prior.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset

from aae.networks import AdversarialAutoencoder


@dataclass(frozen=True)
class LectureLosses:
    """The three losses of one step, as scalars, in nats."""

    reconstruction: float
    discriminator: float
    generator: float


class LectureOptimizers:
    """The lecture's four Adams, with its learning rates."""

    def __init__(self, model: AdversarialAutoencoder) -> None:
        self.decoder = Adam(model.decoder.parameters(), lr=1e-4)
        self.encoder = Adam(model.encoder.parameters(), lr=1e-4)
        self.generator = Adam(model.encoder.parameters(), lr=5e-5)
        self.discriminator = Adam(model.discriminator.parameters(), lr=5e-5)

    def by_name(self) -> dict[str, Adam]:
        """The four by their names."""
        return vars(self)


def lecture_step(
    model: AdversarialAutoencoder, optimizers: LectureOptimizers, images: Tensor, prior_std: float = 1.0
) -> LectureLosses:
    """One step of the lecture on images (B, X): reconstruct, then discriminate, then fool."""
    encoder, decoder, discriminator = model.encoder, model.decoder, model.discriminator

    model.zero_grad()
    codes = encoder(images)  # (B, Z)
    reconstruction = F.binary_cross_entropy(torch.sigmoid(decoder(codes)), images)
    reconstruction.backward()
    optimizers.decoder.step()
    optimizers.encoder.step()

    model.zero_grad()
    encoder.eval()
    fake = encoder(images)  # (B, Z)
    real = torch.randn_like(fake) * prior_std  # (B, Z)
    d_real = torch.sigmoid(discriminator(real))  # (B, 1)
    d_fake = torch.sigmoid(discriminator(fake))  # (B, 1)
    discrimination = -torch.mean(torch.log(d_real) + torch.log(1 - d_fake))
    discrimination.backward()
    optimizers.discriminator.step()

    model.zero_grad()
    encoder.train()
    generation = -torch.mean(torch.log(torch.sigmoid(discriminator(encoder(images)))))
    generation.backward()
    optimizers.generator.step()
    return LectureLosses(reconstruction.item(), discrimination.item(), generation.item())


def train_as_the_lecture(
    model: AdversarialAutoencoder,
    dataset: Dataset[tuple[Tensor, int]],
    batch_size: int = 100,
    prior_std: float = 1.0,
    optimizers: LectureOptimizers | None = None,
) -> Iterator[LectureLosses]:
    """Train for ever over a data set of (1, 28, 28) images in [0, 1] and their labels, yielding each step's losses.

    A batch goes to the model's device as one.
    """
    optimizers = optimizers or LectureOptimizers(model)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
    device = next(model.parameters()).device
    while True:
        for images, _ in loader:
            yield lecture_step(model, optimizers, images.to(device).flatten(1), prior_std)
