"""Measuring a run's weights on held-out data: in a run every so often, and by `aae-job evaluate` in full."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import torch
from torch import Tensor

from aae import metrics
from aae.blocks import ROWS, decode, in_blocks
from aae.classifier import fit_classifier
from aae.losses import discriminator_loss
from aae.networks import AdversarialAutoencoder
from aae.parzen import parzen_log_likelihood
from aae.prior import sample_prior
from job.errors import HopelessError
from job.evaluation.saturation import Reading
from job.log.events import EVALUATION_KEYS

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.data.images import Images

NUM_SAMPLES = 10_000  # of the prior, decoded


@dataclass(frozen=True)
class HeldOut:
    """What a network sees of held-out images, in eval mode: codes (N, Z) in the prior's std, on the CPU, and both losses."""

    codes: Tensor
    reconstruction_bce: float
    reconstruction_mse: float


@torch.no_grad()
def look(model: AdversarialAutoencoder, images: Tensor, prior_std: float) -> HeldOut:
    """Encode and decode uint8 images (N, 784), in eval mode, without a random number."""
    codes, sums = [], torch.zeros(2, dtype=torch.float64, device=images.device)
    for rows in images.split(ROWS):
        x = rows.float().div_(255)  # (rows, X)
        z = in_blocks(model.encoder, x)  # (rows, Z)
        logits = in_blocks(model.decoder, z)  # (rows, X)
        sums[0] += torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        sums[1] += (logits.sigmoid_() - x).square_().sum()
        codes.append(z)
    bce, mse = (sums / images.numel()).tolist()
    return HeldOut(torch.cat(codes).div_(prior_std).cpu(), bce, mse)


def evaluate(
    model: AdversarialAutoencoder, images: Tensor, settings: "Settings", step: int, null: float
) -> tuple[dict[str, Any], Reading]:
    """The keys of an evaluation that need held-out images (N, 784) alone, the others None; and what the detector reads.

    `null` is `metrics.energy_distance_null` for N codes. The prior's samples are a function of seed and step. The networks are
    asked where they are, the figures computed on the CPU.
    """
    seen = look(model, images, settings.prior_std)
    # Codes whose squares are no finite numbers have no distances either.
    if not (torch.isfinite(seen.codes.square().sum()) and math.isfinite(seen.reconstruction_bce)):
        raise HopelessError(
            "nonfinite_loss",
            f"codes or reconstructions of held-out images are not finite numbers at step {step}: the same settings will "
            "meet it again; lower the learning rates under another AAE_RUN_NAME",
        )
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**63)
    prior = sample_prior(len(images), settings.latent_dim, 1.0, generator=generator)  # (N, Z)
    found = {
        "step": step,
        "num_images": len(images),
        "reconstruction_bce": seen.reconstruction_bce,
        "reconstruction_mse": seen.reconstruction_mse,
        **_of_codes(seen.codes, prior, step),
        "energy_distance_q99": null,
    }
    with torch.no_grad():
        shown = torch.cat((prior, seen.codes)).to(images.device)  # (2N, Z)
        d_prior, d_code = model.discriminator(shown * settings.prior_std).cpu().chunk(2)  # (N, 1)
    reading = Reading(
        step=step,
        reconstruction_bce=seen.reconstruction_bce,
        discriminator_loss=float(discriminator_loss(d_prior, d_code)),
        d_accuracy=float(0.5 * ((d_prior > 0).float().mean() + (d_code <= 0).float().mean())),
        d_prior=float(d_prior.sigmoid().mean()),
        d_code=float(d_code.sigmoid().mean()),
        energy_distance=found["energy_distance"],
        energy_distance_q99=null,
        c2st_accuracy=found["c2st_accuracy"],
        smallest_eigenvalue=found["code_cov_eigenvalues"][0],
    )
    return {name: found.get(name) for name in EVALUATION_KEYS}, reading


def encoded(found: dict[str, Any]) -> bytes:
    """An evaluation as it is written."""
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _of_codes(codes: Tensor, prior: Tensor, seed: int) -> dict[str, Any]:
    mean, eigenvalues = metrics.code_moments(codes)
    return {
        "energy_distance": metrics.energy_distance(codes),
        "c2st_accuracy": metrics.c2st_accuracy(codes, prior, seed),
        "code_mean": mean,
        "code_cov_eigenvalues": eigenvalues,
        "empty_cells": metrics.empty_cells(codes) if codes.shape[1] == 2 else None,
    }


def evaluate_fully(
    model: AdversarialAutoencoder, train: "Images", held_out: "Images", settings: "Settings", step: int, *, parzen: bool
) -> dict[str, Any]:
    """Every key of an evaluation, over all held-out images; the Parzen estimate only if it is asked for, since it takes long.

    Labels are used here and nowhere else.
    """
    num = len(held_out.pixels)
    null = metrics.energy_distance_null(num, settings.latent_dim)
    found, _ = evaluate(model, held_out.pixels, settings, step, null)
    codes = look(model, held_out.pixels, settings.prior_std).codes
    train_codes = look(model, train.pixels, settings.prior_std).codes
    of_labels = (codes, held_out.labels, train_codes, train.labels)
    generator = torch.Generator().manual_seed(settings.seed)
    z = sample_prior(NUM_SAMPLES, settings.latent_dim, settings.prior_std, generator=generator)
    samples = decode(model.decoder, z)  # (NUM_SAMPLES, X)
    found |= {
        "knn10_accuracy": metrics.knn_accuracy(*of_labels),
        "linear_probe_accuracy": metrics.linear_probe_accuracy(*of_labels),
        "class_share": class_share(samples, train),
    }
    if parzen:
        validation, test = train.pixels[-10_000:][:1000].float() / 255, held_out.pixels.float() / 255
        found["parzen_log_likelihood"], found["parzen_stderr"] = parzen_log_likelihood(samples, validation, test)
    return found


def class_share(samples: Tensor, train: "Images") -> list[float]:
    """The share of decoded images (N, X) that a classifier trained on the data set gives to each of its ten classes."""
    pixels = train.pixels.float().div_(255)
    steps = 3 * len(pixels) // 250  # three epochs; 0.975 right on MNIST's test images
    classifier = fit_classifier(pixels, train.labels, 10, hidden_dim=256, steps=steps, lr=0.002, seed=0, batch_size=250)
    return (torch.bincount(classifier(samples).argmax(1), minlength=10) / len(samples)).tolist()
