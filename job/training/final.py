"""`final/`: weights, lattice, codes, samples and a summary; appears whole, when a run has reached its total."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict

from job.results.codes import codes_of
from job.results.curves import curves_at_last
from job.results.npz import npz
from job.results.samples import PriorSamples
from job.results.weights import Weights, encode_weights
from job.rundir.directory import RunDir
from job.rundir.status import now
from job.training.trainer import Trainer

FORMAT = 1
NUM_SAMPLES = 100


def final_curves(run_dir: RunDir, warn: Callable[[str, str], None]) -> bytes | None:
    """The curves up to now, None and a warning if they cannot be drawn: a picture must not cost a run its end."""
    try:
        return curves_at_last(run_dir)
    except (OSError, MemoryError, subprocess.SubprocessError) as error:
        warn("no_curves", f"curves.png could not be drawn: {error}")
        return None


def write_final(run_dir: RunDir, trainer: Trainer, segments: int, curves: bytes | None) -> None:
    """Write the folder, or raise OSError and leave none; `curves` are left out if they are None."""
    weights = Weights(trainer.model, trainer.step, trainer.settings)
    contents = {
        run_dir.final_weights.name: encode_weights(trainer.model, trainer.settings, trainer.step),
        run_dir.final_lattice.name: trainer.lattice(),
        run_dir.final_codes.name: npz(codes_of(trainer.model.encoder, trainer.held_out)),
        run_dir.final_samples.name: PriorSamples(weights, NUM_SAMPLES, seed=0).png(),
        **({run_dir.final_curves.name: curves} if curves is not None else {}),
    }
    detector = trainer.monitor.detector
    summary = {
        "format": FORMAT,
        "run": run_dir.path.name,
        "step": trainer.step,
        "finished_at": now(),
        "elapsed_s": round(trainer.clock.elapsed_s, 3),
        "segments": segments,
        "last_step_record": trainer.last_record,
        "saturation": asdict(detector.judgement) if detector.judgement is not None else None,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    with run_dir.replacing_folder(run_dir.final) as folder:
        for name, content in contents.items():
            run_dir.replace(folder / name, content)
        run_dir.replace(folder / run_dir.final_summary.name, (json.dumps(summary, indent=1) + "\n").encode())
