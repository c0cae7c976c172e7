"""`final/`: the weights, the last lattice and a summary; appears whole, when a run has reached its total."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import safetensors.torch
from torch import nn

from aae.networks import AdversarialAutoencoder
from job.curves import draw_curves
from job.rundir import RunDir
from job.settings import Settings
from job.status import now
from job.trainer import Trainer

FORMAT = 1


def final_curves(run_dir: RunDir, warn: Callable[[str, str], None]) -> bytes | None:
    """The curves up to now, None and a warning if they cannot be drawn: a picture must not cost a run its end."""
    try:
        return draw_curves(run_dir)
    except Exception as error:
        warn("no_curves", f"curves.png could not be drawn: {type(error).__name__}: {error}")
        return None


def write_final(run_dir: RunDir, trainer: Trainer, segments: int, curves: bytes | None) -> None:
    """Write the folder, or raise OSError and leave none; `curves` are left out if they are None."""
    contents = {
        run_dir.final_weights.name: encode_weights(trainer.model, trainer.settings, trainer.step),
        run_dir.final_lattice.name: trainer.lattice(),
        **({run_dir.final_curves.name: curves} if curves is not None else {}),
    }
    detector = trainer.monitor.detector
    summary = {
        "format": FORMAT,
        "run": run_dir.path.name,
        "step": trainer.step,
        "finished_at": now(),
        "elapsed_s": round(trainer.elapsed_s, 3),
        "segments": segments,
        "last_step_record": trainer.last_record,
        "saturation": asdict(detector.judgement) if detector.judgement is not None else None,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    trainer.saver.make_room(sum(map(len, contents.values())))
    with run_dir.replacing_folder(run_dir.final) as folder:
        for name, content in contents.items():
            run_dir.replace(folder / name, content)
        run_dir.replace(folder / run_dir.final_summary.name, (json.dumps(summary, indent=1) + "\n").encode())


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
    model = AdversarialAutoencoder(int(metadata["latent_dim"]), int(metadata["hidden_dim"]))
    model.load_state_dict(safetensors.torch.load(content))
    return model.eval(), metadata
