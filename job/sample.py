"""`aae-job sample`: pictures of decoded codes from a run's newest weights."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import SafetensorError

from aae.lattice import decode_picture
from aae.networks import AdversarialAutoencoder
from aae.prior import sample_prior
from job.checkpoint import read_checkpoint
from job.errors import CheckpointError, UsageError
from job.final import decode_weights
from job.pictures import lattice_of, lattice_png, png
from job.record import read_record, recorded_settings
from job.rundir import RunDir
from job.settings import Settings


@dataclass(frozen=True)
class Weights:
    """A run's model in eval mode, its step and settings."""

    model: AdversarialAutoencoder
    step: int
    settings: Settings


def newest_weights(run_dir: RunDir) -> Weights:
    """From `final/`, else from the newest checkpoint that verifies; changes nothing. Raises UsageError if there is none."""
    record = read_record(run_dir)
    if record is None:
        raise UsageError(f"{run_dir.path} has no settings.json")
    settings = recorded_settings(record, run_dir)
    if run_dir.final_weights.is_file():
        try:
            model, metadata = decode_weights(run_dir.final_weights.read_bytes())
        except (SafetensorError, ValueError, KeyError) as error:
            raise UsageError(
                f"{run_dir.final_weights} is damaged: {error}; remove {run_dir.final} and run the job again: it is made anew "
                "from the last checkpoint"
            ) from error
        return Weights(model, int(metadata["step"]), settings)
    for step in run_dir.checkpoint_steps():
        try:
            state: dict[str, Any] = read_checkpoint(run_dir.checkpoint_file(step))
        except (CheckpointError, OSError):
            continue
        model = AdversarialAutoencoder(settings.latent_dim, settings.hidden_dim)
        model.load_state_dict(state["model"] | state.get("average", {}))
        return Weights(model.eval(), step, settings)
    raise UsageError(f"{run_dir.path} has no weights yet: neither final/ nor a checkpoint that can be read")


def sample_lattice(weights: Weights, **changes: Any) -> bytes:
    """A lattice as a PNG: the run's own, but for `changes` (size, extent, mode) that are not None."""
    chosen = {name: value for name, value in changes.items() if value is not None}
    return lattice_png(weights.model.decoder, replace(lattice_of(weights.settings), **chosen), weights.step)


def random_samples(weights: Weights, num_samples: int, seed: int) -> bytes:
    """Decoded prior samples as a PNG, ceil(sqrt(num_samples)) a side; the same seed gives the same ones."""
    settings = weights.settings
    generator = torch.Generator().manual_seed(seed)
    codes = sample_prior(num_samples, settings.latent_dim, settings.prior_std, generator=generator)
    texts = {"step": str(weights.step), "latent_dim": str(settings.latent_dim), "mode": "random", "seed": str(seed)}
    return png(decode_picture(weights.model.decoder, codes), texts)
