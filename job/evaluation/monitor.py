"""Evaluations while training goes on: the weights of a window's end, measured where they lie."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from aae.metrics import energy_distance_null
from aae.networks import AdversarialAutoencoder
from job.config.settings import Settings
from job.evaluation.measures import evaluate
from job.evaluation.saturation import Detector, Reading
from job.log.writer import EventLog

NUM_IMAGES = 1000  # held out, measured at each window's end

_Result = tuple[dict[str, Any], Reading]


class Monitor:
    """Measures at the end of each window, and keeps the verdict on saturation.

    What an evaluation finds takes effect at a step that settings alone give, half a window later, where the loop waits for
    it if need be. Its records are on disk, or carried, before any checkpoint of its step or a later one. On a GPU it runs
    beside the loop, in a thread and on a stream of its own; on a CPU, where it would take its cores from the loop, in it.
    """

    def __init__(
        self,
        settings: Settings,
        model: AdversarialAutoencoder,
        images: Tensor,
        log: EventLog,
    ) -> None:
        self.detector = Detector(settings)
        self._settings = settings
        self._images = images
        self._log = log
        self._snapshot = copy.deepcopy(model).eval()  # a new one would draw its weights from training's random state
        self._beside = _Beside(images.device) if images.is_cuda else None
        self._null: float | None = None
        self._pending: Future[_Result] | None = None

    @property
    def _lag_steps(self) -> int:
        """Steps from a window's end to where its verdict takes effect; fewer than a window has."""
        return max(1, self._settings.window_steps // 2)

    def after(self, step: int, model: AdversarialAutoencoder) -> None:
        """Called after each step: settles what is due, and begins to measure a model at a window's end."""
        into_window = step % self._settings.window_steps
        if into_window == self._lag_steps:
            self.settle()
        if into_window == 0:
            self.take_snapshot(model)
            self._pending = self._beside.submit(self.measure, step) if self._beside is not None else Future()
            if self._beside is None:
                self._pending.set_result(self.measure(step))

    @torch.no_grad()
    def take_snapshot(self, model: AdversarialAutoencoder) -> None:
        """Keep the weights of this step; to be called with no evaluation under way."""
        torch._foreach_copy_(list(self._snapshot.parameters()), list(model.parameters()))

    def is_over(self, step: int) -> bool:
        """Whether the run ends at this step, as saturated: if it is to, and the last window has just made it so."""
        if not self._settings.stop_when_saturated or self.detector.verdict != "saturated":
            return False
        return step == self.detector.readings[-1].step + self._lag_steps

    def settle(self) -> None:
        """Wait for the evaluation that is under way, if one is, and write what it found; raises what it raised."""
        if self._pending is None:
            return
        found, reading = self._pending.result()
        self._pending = None
        self._log.write("evaluation", **found)
        previous = self.detector.verdict
        judgement = self.detector.read(reading)
        if judgement.verdict != previous:
            told = {"verdict": judgement.verdict, "previous": previous, "reason": judgement.reason}
            self._log.write("saturation", step=reading.step, **told, **judgement.numbers)

    def measure(self, step: int) -> _Result:
        """An evaluation of the last snapshot, as that of a step."""
        if self._null is None:
            self._null = energy_distance_null(len(self._images), self._settings.latent_dim)
        return evaluate(self._snapshot, self._images, self._settings, step, self._null)

    def close(self) -> None:
        """Let what works beside the loop end."""
        if self._beside is not None:
            self._beside.close()


class _Beside:
    """A thread with a stream of its own on a GPU, on which work waits for what the loop has launched before, and for no more."""

    def __init__(self, device: torch.device) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._stream = torch.cuda.Stream(device)

    def submit(self, measure: Callable[[int], _Result], step: int) -> Future[_Result]:
        launched = torch.cuda.current_stream(self._stream.device).record_event()

        def work() -> _Result:
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(launched)
                return measure(step)

        return self._thread.submit(work)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
