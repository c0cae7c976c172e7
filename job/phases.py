"""One training step: reconstruct, discriminate, fool.

Each phase asks for the gradients of its own parameters alone, so that it neither computes nor leaves behind any other.
"""

from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import torch
from torch import Tensor, nn

from aae.losses import discriminator_loss, generator_loss, reconstruction_loss
from aae.networks import AdversarialAutoencoder
from aae.prior import sample_prior
from job.adam import Adam
from job.settings import Settings

# What a step reads off, in this order; means over the batch.
READINGS = ("reconstruction_loss", "discriminator_loss", "generator_loss", "d_prior", "d_code", "d_accuracy")


class Phases:
    """The three updates of a step, with the lecture's four Adams."""

    def __init__(self, model: AdversarialAutoencoder, settings: Settings, device: torch.device) -> None:
        self.model = model
        self._settings = settings
        self._device = device

        def adam(network: nn.Module, lr: float) -> Adam:
            # The meta device, on which tests run a step, has no fused kernel.
            return Adam(network.parameters(), lr, fused=device.type in ("cpu", "cuda"))

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
        gradients = iter(torch.autograd.grad(loss, [p for o in optimizers for p in o.parameters]))
        for optimizer in optimizers:
            optimizer.step(islice(gradients, len(optimizer.parameters)))
