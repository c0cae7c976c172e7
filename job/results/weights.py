"""Weights: as a safetensors file, and a run's newest ones, from wherever they are."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from aae.networks import AdversarialAutoencoder
from job.checkpoints.checkpoint import read_checkpoint
from job.config.settings import Settings
from job.config.settings_file import read_record, recorded_settings
from job.errors import CheckpointError, UsageError
from job.machine import allotted_cpus
from job.rundir.directory import RunDir

FORMAT = 1


def encode_weights(model: nn.Module, settings: Settings, step: int) -> bytes:
    """The weights as safetensors with metadata; the same bytes for the same weights."""
    metadata = {
        "format": FORMAT,
        "latent_dim": settings.latent_dim,
        "hidden_dim": settings.hidden_dim,
        "prior_std": settings.prior_std,
        "step": step,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return _ordered(safetensors.torch.save(tensors, {key: str(value) for key, value in metadata.items()}))


def _ordered(content: bytes) -> bytes:
    """The same safetensors file with the keys of its JSON header sorted: the library writes metadata in a random order."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    padded = text.ljust(-len(text) % 8 + len(text))  # the format aligns the tensors to 8 bytes with spaces
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def decode_weights(content: bytes) -> tuple[AdversarialAutoencoder, dict[str, Any]]:
    """The model in eval mode and the metadata of a weights file; raises SafetensorError if it is none."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    return AdversarialAutoencoder.from_weights(safetensors.torch.load(content)), metadata


@dataclass(frozen=True)
class Weights:
    """A run's model, its step and settings."""

    model: AdversarialAutoencoder
    step: int
    settings: Settings


def weights_at_work(run_dir: RunDir) -> Weights:
    """`newest_weights`, for a command that puts them to work on the CPUs allotted to it."""
    torch.set_num_threads(allotted_cpus())
    return newest_weights(run_dir)


def newest_weights(run_dir: RunDir) -> Weights:
    """From `final/`, else from the newest checkpoint that verifies; changes nothing. Raises UsageError if there is none.

    A damaged checkpoint is told of.
    """
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
        except OSError:  # pruned since
            continue
        except CheckpointError as error:
            print(f"note: {error}; an older one is taken", file=sys.stderr)
            continue
        model = AdversarialAutoencoder.from_weights(state["model"] | state.get("average", {}))
        return Weights(model, step, settings)
    raise UsageError(f"{run_dir.path} has no weights yet: neither final/ nor a checkpoint that can be read")
