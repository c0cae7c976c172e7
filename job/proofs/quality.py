"""How long this project takes to the quality that the lecture's loop has after so many steps, both on this machine."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from aae.lecture import train_as_the_lecture
from aae.metrics import energy_distance_null
from aae.networks import AdversarialAutoencoder
from job.config.settings import Settings
from job.data.images import load_images
from job.evaluation.measures import evaluate
from job.proofs.bench_modes import AsLoaded, lecture_from
from job.proofs.children import alone
from job.proofs.interruptions import start
from job.results.weights import newest_weights
from job.rundir.directory import RunDir
from job.training.device import choose_device


@dataclass(frozen=True)
class Trained:
    """What training took, and what all held-out images say of the weights at its end."""

    name: str
    steps: int
    seconds: float
    reconstruction_bce: float
    energy_distance: float

    def is_as_good_as(self, other: "Trained") -> bool:
        """Whether it reconstructs as well and its codes are as near to the prior."""
        return self.reconstruction_bce <= other.reconstruction_bce and self.energy_distance <= other.energy_distance


def measure_quality(settings: Settings, lecture_steps: int, folder: Path, tell: Callable[[str], None]) -> list[Trained]:
    """Train the lecture's loop for so many steps, then the run of the settings to its end, with the same seed."""
    device = choose_device(settings.device)
    tell(f"the lecture's loop: {lecture_steps:,} steps")
    lecture: Trained = alone(_lecture, settings, device.type, lecture_steps)
    tell(f"aae-job: {settings.total_steps:,} steps")
    run_dir = RunDir(folder / "ours")
    start(settings, run_dir).to_its_end()
    weights = newest_weights(run_dir)
    seconds = json.loads(run_dir.final_summary.read_text())["elapsed_s"]
    ours = _judged("aae-job", weights.model, settings, weights.step, seconds)
    return [lecture, ours]


def _lecture(settings: Settings, device_type: str, num_steps: int) -> Trained:
    torch.set_num_threads(settings.num_threads or 1)
    torch.manual_seed(settings.seed)
    model, optimizers = lecture_from(settings, torch.device(device_type), None)
    losses = train_as_the_lecture(model, AsLoaded(settings), 100, settings.prior_std, optimizers)
    began = perf_counter()
    for _ in range(num_steps):
        next(losses)  # which ends with numbers on the host
    seconds = perf_counter() - began
    return _judged("the lecture's loop, as written", model.cpu().eval(), settings, num_steps, seconds)


def _judged(name: str, model: AdversarialAutoencoder, settings: Settings, steps: int, seconds: float) -> Trained:
    images = load_images(settings.dataset, settings.data_dir, train=False).pixels
    found, _ = evaluate(model, images, settings, steps, energy_distance_null(len(images), settings.latent_dim))
    return Trained(name, steps, seconds, found["reconstruction_bce"], found["energy_distance"])


def quality_table(trained: list[Trained]) -> list[str]:
    """The two for people, and what they come to."""
    lecture, ours = trained
    lines = [f"{'':34}{'steps':>8}{'minutes':>9}{'BCE a pixel':>13}{'energy distance':>17}"]
    lines += [
        f"{t.name:34}{t.steps:8,}{t.seconds / 60:9.2f}{t.reconstruction_bce:13.4f}{t.energy_distance:17.4f}"
        for t in trained
    ]
    if ours.is_as_good_as(lecture):
        return [*lines, f"at least as good in 1/{lecture.seconds / ours.seconds:.1f} of the time"]
    return [*lines, "not as good in both: a longer run, or another recipe, may be"]


def quality_json(trained: list[Trained]) -> dict[str, Any]:
    """The two for programs."""
    lecture, ours = trained
    return {
        "trained": [asdict(t) for t in trained],
        "as_good": ours.is_as_good_as(lecture),
        "times_faster": lecture.seconds / ours.seconds,
    }
