"""Run directories that no training has made: small, with all that a reader of runs looks at."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.config.settings_file import Record
from job.config.sources import Configuration
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import Status, write_status

LATTICES = (100, 200, 300)


def line(event: str, step: int, segment: int = 1, second: int = 0, **fields: Any) -> bytes:
    """A line of a log, so many seconds after a minute of 2026."""
    time = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000Z"
    return orjson.dumps({"time": time, "event": event, "segment": segment, "step": step, **fields}) + b"\n"


def step_line(step: int, segment: int = 1, second: int = 0) -> bytes:
    """A `step` record."""
    fields: dict[str, Any] = {
        "reconstruction_loss": 0.2 + 10 / step,
        "discriminator_loss": 1.3,
        "generator_loss": 0.7,
        "d_prior": 0.5,
    }
    return line("step", step, segment, second, epoch=1, **fields, d_code=0.49, d_accuracy=0.52)


def evaluation_line(step: int, segment: int = 1, second: int = 0) -> bytes:
    """An `evaluation` record."""
    figures: dict[str, Any] = {"num_images": 1000, "reconstruction_bce": 0.19 + 10 / step, "energy_distance": 1 / step}
    more = {"energy_distance_q99": 0.003, "c2st_accuracy": 0.51, "code_mean": [0.1, 0.0]}
    return line("evaluation", step, segment, second, **figures, **more, code_cov_eigenvalues=[0.9, 1.1])


def write_lattice(path: Path, step: int, side: int = 28) -> None:
    """A grey picture that differs from step to step."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(step).integers(0, 256, (side, side), np.uint8)).save(path)


def claim(run_dir: RunDir, number: int, **known: Any) -> None:
    """The claim of a segment."""
    segment = Segment(owner=Owner.this_process(), path=os.path.realpath(run_dir.path), **known)
    run_dir.claim_file(number).parent.mkdir(exist_ok=True)
    run_dir.replace(run_dir.claim_file(number), segment.model_dump_json().encode())


def make_run(folder: Path, name: str = "made", *, status: dict[str, Any] | None = None, **settings: Any) -> RunDir:
    """A finished run of two segments, the first of which was killed at step 200 and had saved 150; 300 steps."""
    run_dir = RunDir(folder / name)
    run_dir.path.mkdir(parents=True)
    made = Settings(**{"run_name": name, "runs_dir": folder, "max_steps": 300, **settings})
    sources = {"max_steps": "flag", "run_name": "environment", **dict.fromkeys(settings, "flag")}
    Record.of(Configuration(made, Allocation(), sources)).write(run_dir)
    start: dict[str, Any] = {
        "total_steps": 300,
        "device": "cpu",
        "num_threads": 1,
        "host": "node1",
        "pid": 1,
        "job_id": None,
    }
    start["versions"] = {"aae-job": "0.1.0", "python": "3.11.7", "torch": "2.14.1"}
    again = {"from_step": 150, "previous": "was killed", "steps_lost": 50, "seconds_lost": 5.0, "changed": {}}
    numbers = {"reconstruction_bce": 0.22, "discriminator_loss": 1.38, "d_accuracy": 0.5}
    lines = [line("started", 0, **start)]
    lines += [step_line(step, 1, step // 10) for step in (50, 100, 150, 200)]
    lines += [evaluation_line(100, 1, 11)]
    lines += [line("resumed", 150, 2, 40, **start, **again)]
    lines += [step_line(step, 2, 30 + step // 10) for step in (200, 250, 300)]
    lines += [evaluation_line(step, 2, 30 + step // 10) for step in (200, 300)]
    lines += [line("saturation", 300, 2, 60, verdict="saturated", previous="not_yet", reason="flat", **numbers)]
    lines += [line("finished", 300, 2, 61, elapsed_s=40.0)]
    run_dir.events_file.write_bytes(b"".join(lines))
    claim(run_dir, 1, from_step=0, cause="killed")
    claim(run_dir, 2, from_step=150, cause="finished")
    for step in LATTICES:
        write_lattice(run_dir.lattice_file(step), step)
    run_dir.final.mkdir()
    run_dir.final_weights.write_bytes(b"weights")
    for path in (run_dir.final_curves, run_dir.final / "samples.png"):
        write_lattice(path, 1)
    random = np.random.default_rng(0)
    codes, labels = random.normal(size=(500, 2)).astype(np.float32), random.integers(0, 10, 500)
    np.savez(run_dir.final / "codes.npz", codes=codes, labels=labels, indices=np.arange(500))
    summary = {"step": 300, "saturation": {"verdict": "saturated", "reason": "flat", "numbers": numbers}}
    run_dir.final_summary.write_text(json.dumps(summary))
    told: dict[str, Any] = {
        "state": "finished",
        "saturation": "saturated",
        "verdict": "finished all 300 steps; saturated: flat",
    }
    told |= {"exit_code": 0, "step": 300, "total_steps": 300, "segment": 2, "steps_lost": 50, "device": "cpu"}
    write_status(run_dir, Status(**{**told, **(status or {})}))
    return run_dir
