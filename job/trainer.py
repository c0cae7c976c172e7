"""The training loop: step, log, draw, save, stop at a step border."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from aae.lattice import decode_picture, lattice_codes
from aae.networks import AdversarialAutoencoder
from job.checkpoint import make_room, prune, save_checkpoint
from job.data import Batches
from job.errors import HopelessError
from job.eventlog import EventLog
from job.events import StopReason
from job.graph import GraphedStep
from job.machine import versions
from job.outbox import Outbox
from job.patience import patiently
from job.phases import READINGS, Phases
from job.pictures import lattice_png
from job.rundir import RunDir
from job.settings import Settings

Stop = Callable[[], StopReason | None]

SMALL_BYTES = 2**18  # what names, log lines and the status may take
RETRY_S = 10.0  # between two attempts to save while training goes on


class Trainer:
    """All state of a run in training, and the loop over it.

    Between two log records nothing is read from the device: the readings of the steps add up there.
    """

    def __init__(
        self, settings: Settings, batches: Batches, device: torch.device, run_dir: RunDir, outbox: Outbox, log: EventLog
    ) -> None:
        self.settings = settings
        self.step = 0
        self.last_record: dict[str, Any] = {}
        self.saved_step: int | None = None
        self.save_s = 0.0  # what the last save took
        self.observe: Callable[[Trainer], None] = lambda _: None
        self._device = device
        self._batches = batches
        self._run_dir = run_dir
        self._outbox = outbox
        self._log = log
        torch.manual_seed(settings.seed)
        # Built on the CPU, so that every device starts from the same weights.
        self.model = AdversarialAutoencoder(settings.latent_dim, settings.hidden_dim).to(device)
        self._phases = Phases(self.model, settings, device)
        self._step = self._phases.step
        if settings.cuda_graph:
            self._step = GraphedStep(self._phases.step, device, self._warn_without_graph)
        self._window = torch.zeros(len(READINGS), dtype=torch.float64, device=device)  # sums since the last record
        self._window_steps = 0
        self._elapsed_before_s = 0.0
        self._began: float | None = None
        self._first = self._logged = (0, 0.0)  # (step, elapsed_s) when this process began, and at the last record
        self._next_save_s = settings.checkpoint_every_s
        self._fails = False  # whether the last attempt to save did
        self._num_bytes = self._phases.num_bytes + 2**17  # and what the archive adds

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, over all segments."""
        return self._elapsed_before_s + (time.perf_counter() - self._began if self._began is not None else 0.0)

    def progress(self) -> dict[str, Any]:
        """What status.json tells: step, checkpoint_step, and eta_s at this process's mean speed, None before a step."""
        first_step, first_s = self._first
        step, eta_s = self.step, None
        if step > first_step:
            eta_s = round((self.settings.total_steps - step) * (self.elapsed_s - first_s) / (step - first_step), 1)
        return {"step": step, "checkpoint_step": self.saved_step, "eta_s": eta_s}

    def train(self, stop: Stop) -> StopReason | None:
        """Train to the total (None) or until `stop` answers a reason at a step border; then everything is saved.

        May be called again to go on. Raises HopelessError on a non-finite loss or a disk that stays full.
        """
        reason = None
        self._began = time.perf_counter()
        try:
            while self.step < self.settings.total_steps and (reason := stop()) is None:
                self._advance()
                self.observe(self)
            self._save_patiently()
        finally:
            self._elapsed_before_s = self.elapsed_s
            self._began = None
        return reason

    def _advance(self) -> None:
        self._window += self._step(self._batches.at(self.step + 1))
        self._window_steps += 1
        self.step += 1
        if self.step % self.settings.log_every_steps == 0:
            self._log_step()
        if self.step % self.settings.lattice_every_steps == 0:
            self._draw_lattice()
        every_steps = self.settings.checkpoint_every_steps
        if self.elapsed_s >= self._next_save_s or (every_steps and self.step % every_steps == 0):
            self._save_or_warn()

    def _warn_without_graph(self, message: str) -> None:
        self._log.write("warning", step=self.step, reason="no_cuda_graph", message=message)

    def _log_step(self) -> None:
        """Write a `step` record; the host waits for the device here and nowhere else between checkpoints."""
        readings = self._read_window()
        logged_step, logged_s = self._logged
        self._logged = self.step, self.elapsed_s
        images_per_s = (self.step - logged_step) * self.settings.batch_size / (self.elapsed_s - logged_s)
        self.last_record = {
            "epoch": self._batches.epoch(self.step),
            **readings,
            "images_per_s": round(images_per_s, 1),
            "elapsed_s": round(self.elapsed_s, 3),
        }
        self._log.write("step", step=self.step, **self.last_record)
        self._window.zero_()
        self._window_steps = 0

    def _read_window(self) -> dict[str, float]:
        """The means since the last record, in one transfer; raises HopelessError if one is not a finite number."""
        means = (self._window / max(1, self._window_steps)).tolist()
        readings = dict(zip(READINGS, means, strict=True))
        broken = [name for name, value in readings.items() if not math.isfinite(value)]
        if broken:
            raise HopelessError(
                "nonfinite_loss",
                f"{', '.join(broken)} not a finite number within the {self._window_steps} steps up to step {self.step}: "
                "the same settings will meet it again; lower the learning rates under another AAE_RUN_NAME",
            )
        return readings

    def lattice(self) -> bytes:
        """The lattice of this step, as a PNG."""
        settings = self.settings
        codes = lattice_codes(settings.lattice_size, settings.lattice_extent, settings.latent_dim)
        picture = decode_picture(self.model.decoder, codes)
        return lattice_png(picture, step=self.step, extent=settings.lattice_extent, latent_dim=settings.latent_dim)

    def _draw_lattice(self) -> None:
        content = self.lattice()
        path = self._run_dir.relative(self._run_dir.lattice_file(self.step))
        self._outbox.put(path, content)
        self._outbox.put(self._run_dir.relative(self._run_dir.latest_lattice), content)
        self._log.write("lattice", step=self.step, file=path)

    def save(self) -> None:
        """Save a checkpoint at this step unless there is one; raises OSError if the disk refuses.

        What is due up to this step is on disk before the checkpoint is, or carried in it.
        """
        if self.step in (0, self.saved_step):
            return
        began = time.perf_counter()
        self._read_window()  # what is not finite must not replace a good checkpoint
        self._outbox.drain()
        if not self._outbox.items:
            self._outbox.sync()
        state = self.state()
        self.make_room(self._num_bytes)
        saved = save_checkpoint(self._run_dir, self.step, state)
        self.saved_step = self.step
        self.save_s = time.perf_counter() - began
        self._log.write(
            "checkpoint",
            step=self.step,
            file=self._run_dir.relative(saved.path),
            sha256=saved.sha256,
            size_bytes=saved.size_bytes,
            seconds=round(self.save_s, 3),
        )
        with contextlib.suppress(OSError):  # the next save tries again
            prune(self._run_dir, self.settings.keep_checkpoints, self.step)

    def _save_or_warn(self) -> None:
        """Save, or train on without: there is a good checkpoint, and room may come back. Not if the whole run is gone."""
        try:
            self.save()
        except OSError as error:
            self._next_save_s = self.elapsed_s + RETRY_S
            if not self._run_dir.path.exists():
                self._save_patiently()
            elif not self._fails:
                self._fails = True
                message = f"no checkpoint at step {self.step}: {error}; training goes on, and saves as soon as it can"
                self._log.write("warning", step=self.step, reason="save_failed", message=message)
        else:
            self._fails = False
            self._next_save_s = self.elapsed_s + self.settings.checkpoint_every_s

    def _save_patiently(self) -> None:
        """Save all that is due up to this step; raises HopelessError if the disk does not take it within a minute."""

        def save() -> None:
            self.save()
            with contextlib.suppress(OSError):  # there may be enough all the same
                self.make_room(0)
            self._outbox.flush()

        patiently(save, self._run_dir, f"the newest checkpoint is of step {self.saved_step or 0}")

    def make_room(self, num_bytes: int) -> None:
        """See to it that so much can be written beside all that is due, if need be by removing older checkpoints.

        Raises OSError if it cannot.
        """
        pending = sum(len(item.content) for item in self._outbox.items)
        make_room(self._run_dir, num_bytes + pending + SMALL_BYTES, self.saved_step or 0)

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit, in terms that `torch.load(weights_only=True)` reads."""
        rng = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self._device)
        return {
            **self._phases.state_dict(),
            "rng": rng,
            "window": self._window,
            "window_steps": self._window_steps,
            "elapsed_s": self.elapsed_s,
            "saved_at": time.time(),
            "device": self._device.type,
            "num_threads": torch.get_num_threads(),
            "versions": versions(),
            "settings": self.settings.model_dump(mode="json"),
            "last_record": self.last_record,
            "pending": [(item.path, item.content) for item in self._outbox.items],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.step = self.saved_step = state["step"]
        self._phases.load_state_dict(state)
        torch.set_rng_state(state["rng"]["cpu"])
        if self._device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self._device)
        self._window.copy_(state["window"])
        self._window_steps = state["window_steps"]
        self.last_record = state["last_record"]
        self._elapsed_before_s = state["elapsed_s"]
        self._first = self._logged = (self.step, self.elapsed_s)
        self._next_save_s = self.elapsed_s + self.settings.checkpoint_every_s
