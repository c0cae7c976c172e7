"""Signals in an allocation: at a step border they become a reason to stop, once each."""

import signal
import time
from collections.abc import Callable
from types import FrameType

from job.rundir.claim import StopReason
from job.segment.signals import Signals

RESAVE_S = 5.0  # after a SIGTERM that turned out to be no end: save this often ...
RESAVE_FOR_S = 120.0  # ... for this long

_REASONS: dict[signal.Signals, StopReason] = {signal.SIGUSR2: "time_limit", signal.SIGINT: "interrupt"}


class AllocationStop(Signals):
    """The loop's `stop` in an allocation: answers once for each signal, for the clock, and for a save that is due.

    `signal` is what caused the last answer, None if it was the clock or a due save. `time_is_up` is asked at every step
    border; it may look at the clock only.
    """

    ASKING = (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, time_is_up: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None
        self.time_is_up = time_is_up
        self._resave_until = 0.0
        self._next_save = 0.0
        self._continued = False
        signal.signal(signal.SIGCONT, self._note_continued)  # Slurm sends it along, too; submitit would log it
        self.listen()

    def __call__(self) -> StopReason | None:
        """Why to stop, or None. "terminated" for a SIGTERM means: save, then find out what it was."""
        self.signal = None
        if self.came:
            # USR2 says most: with it there is no need to ask what a SIGTERM beside it means.
            self.signal = signal.SIGUSR2 if signal.SIGUSR2 in self.came else self.came[0]
            self.came.clear()
            return _REASONS.get(self.signal, "terminated")
        if self.time_is_up():
            return "time_limit"
        if self._next_save <= time.monotonic() < self._resave_until:
            self._next_save = time.monotonic() + RESAVE_S
            return "terminated"
        return None

    def comes(self, number: signal.Signals, within_s: float) -> bool:
        """Whether a signal has come since the last answer, or does within so many seconds."""
        deadline = time.monotonic() + within_s
        while number not in self.came and time.monotonic() < deadline:
            time.sleep(0.01)
        return number in self.came

    def was_continued(self) -> bool:
        """Whether a SIGCONT has come since this was asked last: the job may have been suspended, and its end be another."""
        was, self._continued = self._continued, False
        return was

    def _note_continued(self, number: int, frame: FrameType | None) -> None:
        self._continued = True

    def train_on(self) -> None:
        """After a SIGTERM that is no known end: train on, saving often for a while."""
        self._next_save = time.monotonic() + RESAVE_S
        self._resave_until = time.monotonic() + RESAVE_FOR_S
