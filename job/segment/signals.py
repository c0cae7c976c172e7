"""Signals that ask a run to stop: a handler only takes note, and the loop finds it at the next step border."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

from job.errors import EXIT_INTERRUPTED
from job.output import say_at_once
from job.rundir.claim import StopReason


class Signals:
    """Takes note of the signals `ASKING`, in the order in which they come. SIGHUP stays ignored where it was, as under nohup.

    A context manager: after it these signals are ignored, to the very end of the process. Python itself puts handlers back to
    the default on its way out, where a late one would make a failed job of a finished run.
    """

    ASKING: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

    def __init__(self) -> None:
        self.came: list[signal.Signals] = []
        for number in self.ASKING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def listen(self) -> None:
        """Have served what has waited for the handlers."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*self.ASKING, signal.SIGINT})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.ignore_from_now_on()

    def ignore_from_now_on(self) -> None:
        """The segment leaves: nothing has to serve a signal any more."""
        for number in self.ASKING:
            signal.signal(number, signal.SIG_IGN)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.came.append(signal.Signals(number))


class SignalStop(Signals):
    """The loop's `stop` of the foreground command. A second Ctrl-C leaves at once without saving, also on the way out."""

    def __init__(self) -> None:
        super().__init__()
        signal.signal(signal.SIGINT, self._interrupt)
        self.listen()

    @property
    def noticed(self) -> signal.Signals | None:
        """The first that has come, None for none."""
        return self.came[0] if self.came else None

    def __call__(self) -> StopReason | None:
        """Why to stop, None as long as no signal has come."""
        if self.noticed is None:
            return None
        return "interrupt" if self.noticed == signal.SIGINT else "terminated"

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.noticed == signal.SIGINT:
            say_at_once("\nleft without saving; the same command goes on from the last checkpoint\n")
            os._exit(EXIT_INTERRUPTED)
        self._note(number, frame)
