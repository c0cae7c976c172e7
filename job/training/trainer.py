"""The training loop: step, log, draw, measure, save, stop at a step border."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from aae.networks import AdversarialAutoencoder
from job.checkpoints.saver import Saver
from job.config.settings import Settings
from job.data.batches import Batches
from job.data.images import held_out_sample, load_images
from job.evaluation.monitor import NUM_IMAGES, Monitor
from job.log.writer import EventLog
from job.machine import source_digest, versions
from job.results.curves import CurveDrawing
from job.results.pictures import lattice_of, lattice_png
from job.rundir.claim import StopReason
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.training.averaged_weights import AveragedWeights
from job.training.clock import Clock
from job.training.device import hardware
from job.training.graph import GraphedStep, was_done_without
from job.training.loss_window import LossWindow
from job.training.phases import Phases, new_model

Stop = Callable[[], StopReason | None]

RETRY_S = 10.0  # between two attempts to save while training goes on


class Trainer:
    """All state of a run in training, and the loop over it.

    Between two log records nothing is read from the device: the readings of the steps add up there.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        run_dir: RunDir,
        outbox: Outbox,
        log: EventLog,
        *,
        may_record: bool = True,
    ) -> None:
        self.settings = settings
        self.step = 0
        self.computing_since: float | None = None  # on time.monotonic(), None between steps
        self.slowest_step_s = 0.0
        self.clock = Clock()
        self.last_record: dict[str, Any] = {}
        self.observe: Callable[[Trainer], None] = lambda _: None
        self._device = device
        self._run_dir = run_dir
        self._outbox = outbox
        self._log = log
        train, self.held_out = (load_images(settings.dataset, settings.data_dir, train=part) for part in (True, False))
        self._batches = Batches(train.pixels, settings.batch_size, settings.seed, device)
        torch.manual_seed(settings.seed)
        # Built on the CPU, so that every device starts from the same weights.
        model = new_model(settings).to(device)
        self._phases = Phases(model, settings, device)
        self._step = self._phases.step
        self.records_graph = may_record and settings.cuda_graph is not False and device.type == "cuda"
        if self.records_graph:
            self._step = GraphedStep(self._phases.step, self._phases.changed, device, self._warn_without_graph)
        self._average = AveragedWeights(model, settings.ema_decay)
        self._window = LossWindow(device)
        self._next_save_s = settings.checkpoint_every_s
        measured = held_out_sample(self.held_out, NUM_IMAGES).to(device)  # (NUM_IMAGES, X)
        self.monitor = Monitor(settings, model, measured, log)
        self.saver = Saver(run_dir, outbox, log, settings.keep_checkpoints)
        self._curves = CurveDrawing(run_dir, outbox)

    @property
    def model(self) -> AdversarialAutoencoder:
        """The weights that are drawn, measured and kept."""
        return self._average.model

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train: the total is reached, or the run ends here as saturated."""
        return self.step >= self.settings.total_steps or self.monitor.is_over(self.step)

    def progress(self) -> dict[str, Any]:
        """What status.json tells of training; called by the heartbeat's thread."""
        step, detector = self.step, self.monitor.detector
        step_ms, left = self.clock.step_ms(step), self.settings.total_steps - step
        return {
            "step": step,
            "checkpoint_step": self.saver.saved_step,
            "eta_s": round(left * step_ms / 1000, 1) if step_ms is not None else None,
            "saturation": detector.verdict,
            "saturated_at_step": detector.saturated_at_step,
            "evaluation": detector.figures,
            "verdict": detector.words,
        }

    def stood_still(self, seconds: float) -> None:
        """The process was suspended for so long: no time of training; called by the watchdog's thread."""
        self.clock.stood_still(seconds)
        if self.slowest_step_s > seconds:  # the step that it stood still in is over already
            self.slowest_step_s -= seconds

    def train(self, stop: Stop) -> StopReason | None:
        """Train until the run is over (None) or until `stop` answers a reason at a step border; then everything is saved.

        May be called again to go on. Raises HopelessError on a non-finite loss or a disk that stays full.
        """
        reason = None
        with self.clock.running():
            while not self.is_over and (reason := stop()) is None:
                self.advance()
                self.observe(self)
            self._settle()
            self.saver.save_patiently(self.step, self.state)
        return reason

    def close(self) -> None:
        """End what works beside the loop."""
        self.monitor.close()
        self._curves.close()

    def advance(self) -> None:
        """Make one step, and do what is due after it."""
        settings = self.settings
        self.computing_since, began_s = time.monotonic(), self.clock.elapsed_s
        if settings.lr_schedule == "cosine":
            # Loshchilov and Hutter, 2017, without restarts.
            self._phases.set_rates(0.5 * (1 + math.cos(math.pi * self.step / settings.total_steps)))
        self._window.add(self._step(self._batches.at(self.step + 1)))
        self.step += 1
        self._average.follow(self.step)
        readings = self._window.means(self.step) if self.step % settings.log_every_steps == 0 else None
        self.computing_since = None
        self.slowest_step_s = max(self.slowest_step_s, self.clock.elapsed_s - began_s)
        if readings is not None:
            self._log_step(readings)
        with self._computing():
            self.monitor.after(self.step, self.model)
        if self.step % settings.lattice_every_steps == 0:
            self._draw_lattice()
        every_steps = settings.checkpoint_every_steps
        if self.clock.elapsed_s >= self._next_save_s or (every_steps and self.step % every_steps == 0):
            self._settle()
            is_saved = self.saver.save_or_warn(self.step, self.state)
            self._next_save_s = self.clock.elapsed_s + (settings.checkpoint_every_s if is_saved else RETRY_S)

    def _settle(self) -> None:
        """Have ready what is due up to this step, and see to it that what is not finite replaces no good checkpoint."""
        with self._computing():
            self._window.means(self.step)
            self.monitor.settle()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """What waits for the device, as a step does."""
        self.computing_since = time.monotonic()
        yield
        self.computing_since = None

    def _warn_without_graph(self, message: str) -> None:
        self.records_graph = False
        self._log.write("warning", step=self.step, reason="no_cuda_graph", message=message)

    def _log_step(self, readings: dict[str, float]) -> None:
        """Write a `step` record; for its readings the host waits for the device, and nowhere else between checkpoints."""
        self._window.clear()
        self.last_record = {
            "epoch": self._batches.epoch(self.step),
            **readings,
            "images_per_s": round(self.clock.lap(self.step) * self.settings.batch_size, 1),
            "elapsed_s": round(self.clock.elapsed_s, 3),
        }
        self._log.write("step", step=self.step, **self.last_record)

    def lattice(self) -> bytes:
        """The lattice of this step, as a PNG."""
        return lattice_png(self.model.decoder, lattice_of(self.settings), self.step)

    def _draw_lattice(self) -> None:
        with self._computing():
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
            **self._window.state_dict(),
            "elapsed_s": self.clock.elapsed_s,
            "saved_at": time.time(),
            "device": self._device.type,
            "num_threads": torch.get_num_threads(),
            "versions": versions(),
            "source_digest": source_digest(),
            "hardware": hardware(self._device),
            "cuda_graph": self.records_graph,
            "settings": self.settings.model_dump(mode="json"),
            "last_record": self.last_record,
            "pending": [(item.path, item.content) for item in self._outbox.items],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state; one of an older version has neither averages nor a detector."""
        self.step = self.saver.saved_step = state["step"]
        if was_done_without(state, self.settings.cuda_graph, hardware(self._device)):
            self._step, self.records_graph = self._phases.step, False
        self._phases.load_state_dict(state)
        self._average.load_state_dict(state.get("average", {}))
        if "detector" in state:
            self.monitor.detector.load_state_dict(state["detector"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self._device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self._device)
        self._window.load_state_dict(state)
        self.last_record = state["last_record"]
        self.clock.go_on_from(self.step, state["elapsed_s"])
        self._next_save_s = self.clock.elapsed_s + self.settings.checkpoint_every_s
