"""Signals in an allocation: handlers only set flags; at a step border they become a reason to stop."""

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from job.events import StopReason

RESAVE_S = 5.0  # after a SIGTERM that turned out to be no end: save this often ...
RESAVE_FOR_S = 120.0  # ... for this long

_ASKING = (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)


class AllocationStop:
    """The loop's `stop` in an allocation: answers once for each signal, for the clock, and for a save that is due.

    `signal` is what caused the last answer, None if it was the clock or a due save. `time_is_up` is asked at every step
    border; it may look at the clock only.

    A context manager: after it signals are ignored, to the very end of the process. Python itself puts handlers back to
    the default on its way out, where a late SIGUSR2 would make a failed job of a finished run.
    """

    def __init__(self, time_is_up: Callable[[], bool] = lambda: False) -> None:
        self.signal: signal.Signals | None = None
        self.time_is_up = time_is_up
        self._came: list[signal.Signals] = []
        self._resave_until = 0.0
        self._next_save = 0.0
        for number in _ASKING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)
        signal.signal(signal.SIGCONT, lambda *_: None)  # Slurm sends it along; submitit would log it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.ignore_from_now_on()

    def __call__(self) -> StopReason | None:
        """Why to stop, or None. "terminated" for a SIGTERM means: save, then find out what it was."""
        self.signal = None
        if self._came:
            # USR2 says most: with it there is no need to ask what a SIGTERM beside it means.
            self.signal = signal.SIGUSR2 if signal.SIGUSR2 in self._came else self._came[0]
            self._came.clear()
            return {signal.SIGUSR2: "time_limit", signal.SIGINT: "interrupt"}.get(self.signal, "terminated")  # type: ignore[return-value]
        if self.time_is_up():
            return "time_limit"
        if time.monotonic() < self._resave_until and time.monotonic() >= self._next_save:
            self._next_save = time.monotonic() + RESAVE_S
            return "terminated"
        return None

    def comes(self, number: signal.Signals, within_s: float) -> bool:
        """Whether a signal has come since the last answer, or does within so many seconds."""
        deadline = time.monotonic() + within_s
        while number not in self._came and time.monotonic() < deadline:
            time.sleep(0.01)
        return number in self._came

    def train_on(self) -> None:
        """After a SIGTERM that is no known end: train on, saving often for a while."""
        self._next_save = time.monotonic() + RESAVE_S
        self._resave_until = time.monotonic() + RESAVE_FOR_S

    def ignore_from_now_on(self) -> None:
        """The segment leaves; a requeue sends signals to it, which nothing has to serve any more."""
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._came.append(signal.Signals(number))
