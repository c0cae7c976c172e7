"""One training step: reconstruct, discriminate, fool."""

from typing import Any

import torch
from torch import Tensor

from aae.adam import Adam
from aae.backprop import add_gradient_penalty, backward, first_layer, forward, loss_and_gradient
from aae.losses import discriminator_loss, generator_loss, reconstruction_loss
from aae.networks import AdversarialAutoencoder
from aae.noise import with_noise
from aae.prior import sample_prior
from job.config.settings import Settings
from job.training.precision import Working


def new_model(settings: Settings) -> AdversarialAutoencoder:
    """The networks that the settings describe, on the CPU, with weights drawn from torch's random state."""
    return AdversarialAutoencoder(
        settings.latent_dim,
        settings.hidden_dim,
        autoencoder_dropout=settings.autoencoder_dropout,
        discriminator_dropout=settings.discriminator_dropout,
    )


class Phases:
    """The three updates of a step, with the lecture's four Adams, at the rates of `set_rates`."""

    def __init__(self, model: AdversarialAutoencoder, settings: Settings, device: torch.device) -> None:
        self.model = model
        self._settings = settings
        own = next(model.parameters()).dtype
        self._working = Working(model, torch.bfloat16 if settings.precision == "bfloat16" else own)

        def adam(name: str, eps: float = 1e-8) -> Adam:
            # The meta device, on which tests run a step, has no fused kernel.
            return Adam(getattr(model, name).parameters(), eps=eps, fused=device.type in ("cpu", "cuda"))

        self._optimizers = {
            "decoder": adam("decoder"),
            "encoder": adam("encoder"),
            "generator": adam("encoder", settings.generator_eps),
            "discriminator": adam("discriminator"),
        }
        self._full_rates = {name: getattr(settings, f"{name}_lr") for name in self._optimizers}
        self._rates: dict[str, float | Tensor] = dict(self._full_rates)
        if settings.lr_schedule != "constant" and device.type == "cuda":
            # A recorded graph would keep a number for ever; a tensor it reads anew.
            self._rates = {name: torch.tensor(lr, device=device) for name, lr in self._full_rates.items()}

    def set_rates(self, factor: float) -> None:
        """Take the settings' learning rates times a factor from the next step on."""
        for name, full in self._full_rates.items():
            rate = self._rates[name]
            if isinstance(rate, Tensor):
                rate.fill_(full * factor)
            else:
                self._rates[name] = full * factor

    @torch.no_grad()
    def step(self, images: Tensor) -> Tensor:
        """Train on images (B, X) in [0, 1]; returns READINGS as a float32 tensor (6,) on the device."""
        networks, gradients, full = self._working.networks, self._working.gradients, images.dtype
        encoder, decoder, discriminator = networks.encoder, networks.decoder, networks.discriminator
        x = images.to(encoder.output.weight.dtype)  # (B, X)

        # 1. Reconstruct: P and Q lower the reconstruction loss.
        codes, encoding = forward(encoder, x)  # (B, Z)
        with torch.enable_grad():
            clean = codes.detach().to(full).requires_grad_()
            noisy = with_noise(clean, self._settings.code_noise)  # (B, Z)
        logits, decoding = forward(decoder, noisy.detach().to(x.dtype))  # (B, X)
        reconstruction, g = loss_and_gradient(lambda out: reconstruction_loss(out, images), logits, full)
        g = backward(decoder, decoding, g, gradients["decoder"]) @ decoder.hidden1.weight  # (B, Z)
        with torch.enable_grad():
            through_noise = (noisy * g.to(full)).sum()  # given as grad_outputs, g would cost a second's import of sympy
        (g,) = torch.autograd.grad(through_noise, clean)
        backward(encoder, encoding, g.to(x.dtype), gradients["encoder"])
        self._update("decoder", "decoder")
        self._update("encoder", "encoder")

        # 2a. Discriminate: D learns to tell prior samples from codes; Q without dropout and without a gradient.
        first = first_layer(encoder, x)  # (B, H), for 2b too: Q stays as it is until then
        codes, _ = forward(encoder, x, dropout=False, first=first)  # (B, Z)
        prior = sample_prior(len(x), codes.shape[1], self._settings.prior_std, device=x.device, dtype=full)
        logits, telling = forward(discriminator, torch.cat((prior.to(x.dtype), codes)))  # (2B, 1): both at once
        discrimination, g = loss_and_gradient(lambda out: discriminator_loss(*out.chunk(2)), logits, full)
        backward(discriminator, telling, g, gradients["discriminator"])
        if self._settings.r1_penalty:
            weight = self._settings.r1_penalty * self._settings.prior_std**2  # so that it means the same at every scale
            add_gradient_penalty(discriminator, telling, len(x), weight, gradients["discriminator"])
        self._update("discriminator", "discriminator")
        d_prior, d_code = logits.to(full).chunk(2)

        # 2b. Fool: Q moves its codes to where D takes them for prior samples.
        codes, encoding = forward(encoder, x, first=first)  # (B, Z)
        logits, telling = forward(discriminator, codes)  # (B, 1)
        generation, g = loss_and_gradient(generator_loss, logits, full)
        g = backward(discriminator, telling, g, None) @ discriminator.hidden1.weight  # (B, Z)
        backward(encoder, encoding, g, gradients["encoder"])
        self._update("generator", "encoder")

        accuracy = 0.5 * ((d_prior > 0).to(full).mean() + (d_code <= 0).to(full).mean())
        probabilities = d_prior.sigmoid().mean(), d_code.sigmoid().mean()
        return torch.stack([reconstruction, discrimination, generation, *probabilities, accuracy])

    def _update(self, optimizer: str, network: str) -> None:
        self._optimizers[optimizer].step(self._working.full_gradients(network), self._rates[optimizer])
        self._working.follow(network)

    @property
    def num_bytes(self) -> int:
        """What the weights and Adam's two moments of each take."""
        moved = [p for optimizer in self._optimizers.values() for p in optimizer.parameters]
        return sum(p.nbytes for p in self.model.parameters()) + 2 * sum(p.nbytes for p in moved)

    def state_dict(self) -> dict[str, Any]:
        """The weights and the state of each Adam."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.model.load_state_dict(state["model"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, _ in self.model.named_children():
            self._working.follow(name)
