"""What a run does beside its steps, each by itself: how long it takes, and which share of a run that is."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from job.config.settings import Settings
from job.log.reader import merged_records
from job.log.writer import EventLog
from job.proofs.interruptions import start
from job.results import curves
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.training.device import choose_device, prepare_torch
from job.training.trainer import Trainer

_TURNS = 5
_STEPS = 20  # of the run that is started and ended


@dataclass(frozen=True)
class Beside:
    """One kind of work, the milliseconds that it takes once, and how often a run at these settings does it."""

    name: str
    ms: float
    times: float

    def share(self, step_ms: float, total_steps: int) -> float:
        """Of the time that a run's steps take."""
        return self.ms * self.times / (step_ms * total_steps)


def measure_beside(settings: Settings, folder: Path, step_ms: float) -> list[Beside]:
    """Measure each kind of work in a run directory below `folder`; for a process of its own, which sets torch up for it."""
    device, _ = prepare_torch(settings)
    run_dir = RunDir(folder / "beside")
    run_dir.path.mkdir(parents=True)
    outbox = Outbox(run_dir)
    log = EventLog(run_dir, 1, outbox)
    trainer = Trainer(settings, device, run_dir, outbox, log)
    total, total_s = settings.total_steps, settings.total_steps * step_ms / 1000
    reading = dict.fromkeys(("reconstruction_loss", "discriminator_loss", "generator_loss", "d_accuracy"), 0.5)

    def record(step: int) -> None:
        log.write("step", step=step, epoch=1, d_prior=0.5, d_code=0.5, images_per_s=1.0, elapsed_s=1.0, **reading)

    numbers = iter(range(1, 10**6))
    record_ms = _ms(lambda: record(next(numbers)))
    for step in range(total // settings.log_every_steps):  # as long a log as the run will have, to draw
        record(step)
    rows = [
        Beside("evaluation", _ms(lambda: trainer.monitor.measure(0)), total // settings.window_steps),
        Beside("lattice", _ms(trainer.lattice), total // settings.lattice_every_steps),
        Beside(
            "checkpoint, synced",
            _ms(lambda: trainer.saver.save(next(numbers), trainer.state)),
            total_s / settings.checkpoint_every_s + total // (settings.checkpoint_every_steps or total + 1),
        ),
        Beside("log record", record_ms, total // settings.log_every_steps),
    ]
    # Another process draws, at the lowest priority: at most, all of its time on a core is taken from this one's.
    before = os.times()
    curves.curves_at_last(run_dir)
    after = os.times()
    draw_s = after.children_user + after.children_system - before.children_user - before.children_system
    times = 1 + (total_s - curves.FIRST_S) // (curves.PAUSE * draw_s) if total_s > curves.FIRST_S else 0
    trainer.close()
    outbox.close()
    return [*rows, Beside("curves, of one core", 1000 * draw_s, times / (settings.num_threads or 1))]


def _ms(work: Callable[[], object]) -> float:
    work()
    took = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def measure_ends(settings: Settings, folder: Path) -> tuple[float, float]:
    """Seconds from the command to the first step of a new run, and from its last step to the end of the process."""
    choose_device(settings.device)
    short = settings.model_copy(update={"max_steps": _STEPS, "log_every_steps": 1, "lr_schedule": "constant"})
    run_dir = RunDir(folder / "ends")
    began = time.time()
    start(short, run_dir).to_its_end()
    ended = time.time()
    stepped = [datetime.fromisoformat(r["time"]).timestamp() for r in merged_records(run_dir.events_file, "step")]
    return stepped[0] - began, ended - stepped[-1]
