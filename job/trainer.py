"""The training loop: step, log, draw, measure, save, stop at a step border."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from aae.networks import AdversarialAutoencoder
from job.average import Average
from job.curves import CurveDrawing
from job.data import Batches
from job.errors import HopelessError
from job.eventlog import EventLog
from job.events import StopReason
from job.graph import GraphedStep
from job.machine import versions
from job.monitor import Monitor
from job.outbox import Outbox
from job.phases import READINGS, Phases, new_model
from job.pictures import lattice_of, lattice_png
from job.rundir import RunDir
from job.saving import Saver
from job.settings import Settings

Stop = Callable[[], StopReason | None]

RETRY_S = 10.0  # between two attempts to save while training goes on


class Trainer:
    """All state of a run in training, and the loop over it.

    Between two log records nothing is read from the device: the readings of the steps add up there. `held_out` are the
    images (N, 784) to measure on.
    """

    def __init__(
        self,
        settings: Settings,
        batches: Batches,
        held_out: torch.Tensor,
        device: torch.device,
        run_dir: RunDir,
        outbox: Outbox,
        log: EventLog,
    ) -> None:
        self.settings = settings
        self.step = 0
        self.last_record: dict[str, Any] = {}
        self.observe: Callable[[Trainer], None] = lambda _: None
        self._device = device
        self._batches = batches
        self._run_dir = run_dir
        self._outbox = outbox
        self._log = log
        torch.manual_seed(settings.seed)
        # Built on the CPU, so that every device starts from the same weights.
        model = new_model(settings).to(device)
        self._phases = Phases(model, settings, device)
        self._step = self._phases.step
        if settings.cuda_graph:
            self._step = GraphedStep(self._phases.step, device, self._warn_without_graph)
        self._average = Average(model, settings.ema_decay)
        self._window = torch.zeros(len(READINGS), dtype=torch.float64, device=device)  # sums since the last record
        self._window_steps = 0
        self._elapsed_before_s = 0.0
        self._began: float | None = None
        self._first = self._logged = (0, 0.0)  # (step, elapsed_s) when this process began, and at the last record
        self._next_save_s = settings.checkpoint_every_s
        self.monitor = Monitor(settings, model, held_out.to(device), run_dir, outbox, log)
        num_bytes = self._phases.num_bytes + self._average.num_bytes + 2**17  # and what the archive adds
        self.saver = Saver(run_dir, outbox, log, settings.keep_checkpoints, num_bytes)
        self._curves = CurveDrawing(run_dir, outbox)

    @property
    def model(self) -> AdversarialAutoencoder:
        """The weights that are drawn, measured and kept."""
        return self._average.model

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, over all segments."""
        return self._elapsed_before_s + (time.perf_counter() - self._began if self._began is not None else 0.0)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: the total is reached, or the run ends here as saturated."""
        return self.step >= self.settings.total_steps or self.monitor.is_over(self.step)

    def progress(self) -> dict[str, Any]:
        """What status.json tells of training; eta_s is at this process's mean speed, None before a step."""
        first_step, first_s = self._first
        step, eta_s = self.step, None
        if step > first_step:
            eta_s = round((self.settings.total_steps - step) * (self.elapsed_s - first_s) / (step - first_step), 1)
        detector = self.monitor.detector
        return {
            "step": step,
            "checkpoint_step": self.saver.saved_step,
            "eta_s": eta_s,
            "saturation": detector.verdict,
            "verdict": detector.words,
        }

    def train(self, stop: Stop) -> StopReason | None:
        """Train until the run is over (None) or until `stop` answers a reason at a step border; then everything is saved.

        May be called again to go on. Raises HopelessError on a non-finite loss or a disk that stays full.
        """
        reason = None
        self._began = time.perf_counter()
        try:
            while not self.is_over and (reason := stop()) is None:
                self._advance()
                self.observe(self)
            self._settle()
            self.saver.save_patiently(self.step, self.state)
        finally:
            self._elapsed_before_s = self.elapsed_s
            self._began = None
        return reason

    def close(self) -> None:
        """End what works beside the loop."""
        self.monitor.close()
        self._curves.close()

    def _advance(self) -> None:
        settings = self.settings
        if settings.lr_schedule == "cosine":
            # Loshchilov and Hutter, 2017, without restarts.
            self._phases.set_rates(0.5 * (1 + math.cos(math.pi * self.step / settings.total_steps)))
        self._window += self._step(self._batches.at(self.step + 1))
        self._window_steps += 1
        self.step += 1
        self._average.follow(self.step)
        if self.step % settings.log_every_steps == 0:
            self._log_step()
        self.monitor.after(self.step, self.model)
        if self.step % settings.lattice_every_steps == 0:
            self._draw_lattice()
        every_steps = settings.checkpoint_every_steps
        if self.elapsed_s >= self._next_save_s or (every_steps and self.step % every_steps == 0):
            self._settle()
            is_saved = self.saver.save_or_warn(self.step, self.state)
            self._next_save_s = self.elapsed_s + (settings.checkpoint_every_s if is_saved else RETRY_S)

    def _settle(self) -> None:
        """Have ready what is due up to this step, and see to it that what is not finite replaces no good checkpoint."""
        self._read_window()
        self.monitor.settle()

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
        return lattice_png(self.model.decoder, lattice_of(self.settings), self.step)

    def _draw_lattice(self) -> None:
        content = self.lattice()
        path = self._run_dir.relative(self._run_dir.lattice_file(self.step))
        self._outbox.put(path, content)
        self._outbox.put(self._run_dir.relative(self._run_dir.latest_lattice), content)
        self._log.write("lattice", step=self.step, file=path)
        self._curves.refresh()

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit, in terms that `torch.load(weights_only=True)` reads."""
        rng = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self._device)
        return {
            **self._phases.state_dict(),
            "average": self._average.state_dict(),
            "detector": self.monitor.detector.state_dict(),
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
        """Go on from a checkpoint's state; one of an older version has neither averages nor a detector."""
        self.step = self.saver.saved_step = state["step"]
        self._phases.load_state_dict(state)
        self._average.load_state_dict(state.get("average", {}))
        if "detector" in state:
            self.monitor.detector.load_state_dict(state["detector"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self._device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self._device)
        self._window.copy_(state["window"])
        self._window_steps = state["window_steps"]
        self.last_record = state["last_record"]
        self._elapsed_before_s = state["elapsed_s"]
        self._first = self._logged = (self.step, self.elapsed_s)
        self._next_save_s = self.elapsed_s + self.settings.checkpoint_every_s
