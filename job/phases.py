"""One training step: reconstruct, discriminate, fool.

Each backward pass names the parameters it is for, so that no phase computes or leaves behind a gradient for another.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from aae.losses import discriminator_loss, generator_loss, reconstruction_loss
from aae.networks import AdversarialAutoencoder
from aae.prior import sample_prior
from job.settings import Settings

# What a step reads off, in this order; means over the batch.
READINGS = ("reconstruction_loss", "discriminator_loss", "generator_loss", "d_prior", "d_code", "d_accuracy")


class Phases:
    """The three updates of a step, with the lecture's four Adams."""

    def __init__(self, model: AdversarialAutoencoder, settings: Settings, device: torch.device) -> None:
        self.model = model
        self._settings = settings
        self._device = device

        def adam(network: nn.Module, lr: float) -> Optimizer:
            # Fused: one kernel for all tensors. The meta device, on which tests run a step, has none.
            return Adam(network.parameters(), lr=lr, fused=device.type in ("cpu", "cuda"))

        self.optimizers = {
            "decoder": adam(model.decoder, settings.decoder_lr),
            "encoder": adam(model.encoder, settings.encoder_lr),
            "generator": adam(model.encoder, settings.generator_lr),
            "discriminator": adam(model.discriminator, settings.discriminator_lr),
        }

    def step(self, images: Tensor) -> Tensor:
        """Train on images (B, X) in [0, 1]; returns READINGS as a float32 tensor (6,) on the device."""
        encoder, decoder, discriminator = self.model.encoder, self.model.decoder, self.model.discriminator
        settings, num_images = self._settings, len(images)

        # 1. Reconstruct: P and Q lower the reconstruction loss.
        with self._precision():
            logits = decoder(encoder(images))  # (B, X)
        reconstruction = reconstruction_loss(logits.to(images.dtype), images)
        self._update(reconstruction, "decoder", "encoder")

        # 2a. Discriminate: D learns to tell prior samples from codes; Q in eval mode and without a gradient.
        encoder.eval()
        with torch.no_grad(), self._precision():
            codes = encoder(images).to(images.dtype)  # (B, Z)
        encoder.train()
        prior = sample_prior(
            num_images, settings.latent_dim, settings.prior_std, device=self._device, dtype=codes.dtype
        )
        with self._precision():
            d_logits = discriminator(torch.cat((prior, codes)))  # (2B, 1): both through D in one product
        d_prior, d_code = d_logits.to(images.dtype).split(num_images)
        discrimination = discriminator_loss(d_prior, d_code)
        self._update(discrimination, "discriminator")

        # 2b. Fool: Q moves its codes to where D takes them for prior samples.
        with self._precision():
            fooled = discriminator(encoder(images))  # (B, 1)
        generation = generator_loss(fooled.to(images.dtype))
        self._update(generation, "generator")

        accuracy = 0.5 * ((d_prior > 0).float().mean() + (d_code <= 0).float().mean())
        probabilities = d_prior.sigmoid().mean(), d_code.sigmoid().mean()
        return torch.stack([reconstruction, discrimination, generation, *probabilities, accuracy]).detach()

    def _precision(self) -> AbstractContextManager[None]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def _update(self, loss: Tensor, *names: str) -> None:
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward(inputs=[p for optimizer in optimizers for p in _parameters(optimizer)])
        for optimizer in optimizers:
            optimizer.step()


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])
