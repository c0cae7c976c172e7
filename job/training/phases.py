"""One training step: reconstruct, discriminate, fool."""

from typing import Any

import torch
from torch import Tensor

from aae.adam import Adam
from aae.backprop import Dropout, add_gradient_penalty, backward, first_layer, forward, input_gradient
from aae.losses import cross_entropy, wrongness
from aae.networks import AdversarialAutoencoder
from aae.noise import with_noise
from aae.prior import sample_prior
from job.config.settings import Settings
from job.training.precision import Working
from job.training.readings import Readings

_MOVED_BY = {"decoder": "decoder", "encoder": "encoder", "generator": "encoder", "discriminator": "discriminator"}


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
        encoder, decoder, discriminator = self._working.networks.perceptrons.values()
        # In the order of the passes of a step.
        self._dropout = Dropout([(encoder, 1), (decoder, 1), (discriminator, 2), (encoder, 1), (discriminator, 1)])
        self._batch_size = 0
        self._readings: Readings
        self._signs: Tensor
        self._shares: Tensor
        self._steps = torch.zeros((), device=device)
        eps = {"generator": settings.generator_eps}
        self._optimizers = {
            name: Adam(getattr(model, network).parameters(), self._steps, eps=eps.get(name, 1e-8))
            for name, network in _MOVED_BY.items()
        }
        self._full_rates = {name: getattr(settings, f"{name}_lr") for name in _MOVED_BY}
        self._rates: dict[str, Any] = self._full_rates
        self._rate_memory: tuple[Tensor, Tensor] | None = None
        if settings.lr_schedule != "constant" and device.type == "cuda":
            # A recorded graph would keep numbers for ever; what lies in memory it reads anew.
            full = torch.tensor(list(self._full_rates.values()), device=device)
            self._rate_memory = full, full.clone()
            self._rates = dict(zip(_MOVED_BY, self._rate_memory[1].unbind(), strict=True))

    def set_rates(self, factor: float) -> None:
        """Take the settings' learning rates times a factor from the next step on."""
        if self._rate_memory is None:
            self._rates = {name: full * factor for name, full in self._full_rates.items()}
        else:
            torch.mul(self._rate_memory[0], factor, out=self._rate_memory[1])

    @torch.no_grad()
    def step(self, images: Tensor) -> Tensor:
        """Train on images (B, X) in [0, 1]; returns READINGS as a float32 tensor (6,) on the device."""
        networks, gradients, full = self._working.networks, self._working.gradients, images.dtype
        encoder, decoder, discriminator = networks.encoder, networks.decoder, networks.discriminator
        x, num = images.to(encoder.output.weight.dtype), len(images)  # (B, X)
        masks = iter(self._dropout.draw(num))
        self._prepare_for(images)
        self._steps.add_(1)

        # 1. Reconstruct: P and Q lower the reconstruction loss.
        codes, encoding = forward(encoder, x, next(masks))  # (B, Z)
        noisy, through_noise = with_noise(codes.to(full), self._settings.code_noise)  # (B, Z)
        logits, decoding = forward(decoder, noisy.to(x.dtype), next(masks))  # (B, X)
        reconstruction, g = cross_entropy(logits.to(full), images)
        g = backward(decoder, decoding, g.div_(g.numel()).to(x.dtype), gradients["decoder"])
        g = through_noise(input_gradient(decoder, g).to(full))  # (B, Z)
        backward(encoder, encoding, g.to(x.dtype), gradients["encoder"])
        self._update("decoder")
        self._update("encoder")

        # 2a. Discriminate: D learns to tell prior samples from codes; Q without dropout and without a gradient.
        first = first_layer(encoder, x)  # (B, H), for 2b too: Q stays as it is until then
        codes, _ = forward(encoder, x, first=first)  # (B, Z)
        prior = sample_prior(num, codes.shape[1], self._settings.prior_std, device=x.device, dtype=full)
        both = torch.cat((prior.to(x.dtype), codes))  # (2B, Z), which go through D at once
        logits, telling = forward(discriminator, both, next(masks))  # (2B, 1)
        discrimination, wrong = wrongness(logits.to(full), self._signs)
        backward(discriminator, telling, (wrong * self._shares).to(x.dtype), gradients["discriminator"])
        if self._settings.r1_penalty:
            weight = self._settings.r1_penalty * self._settings.prior_std**2  # so that it means the same at every scale
            add_gradient_penalty(discriminator, telling, num, weight, gradients["discriminator"])
        self._update("discriminator")

        # 2b. Fool: Q moves its codes to where D takes them for prior samples.
        codes, encoding = forward(encoder, x, next(masks), first=first)  # (B, Z)
        logits, telling = forward(discriminator, codes, next(masks))  # (B, 1)
        generation, g = wrongness(logits.to(full), -1.0)
        g = backward(discriminator, telling, g.div_(-num).to(x.dtype), None)
        backward(encoder, encoding, input_gradient(discriminator, g), gradients["encoder"])
        self._update("generator")

        return self._readings.of(reconstruction, discrimination, wrong, generation)

    def _prepare_for(self, images: Tensor) -> None:
        """Have at hand what depends on the number of images B alone."""
        if len(images) != self._batch_size:
            self._batch_size = len(images)
            self._readings = Readings(self._batch_size, images)
            ones = images.new_ones(self._batch_size, 1)
            self._signs = torch.cat((-ones, ones))  # (2B, 1), as D is shown prior samples and codes
            self._shares = self._signs / self._batch_size

    def _update(self, optimizer: str) -> None:
        network = _MOVED_BY[optimizer]
        self._optimizers[optimizer].step(self._working.full_gradients(network), self._rates[optimizer])
        self._working.follow(network)

    @property
    def changed(self) -> list[Tensor]:
        """The tensors that a step changes and the next one reads."""
        moments = (m for optimizer in self._optimizers.values() for m in optimizer.moments)
        weights = {id(w): w.detach() for of in (self.model, self._working.networks) for w in of.parameters()}
        return [*weights.values(), *moments, self._steps]

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
