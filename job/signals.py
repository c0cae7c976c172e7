"""Signals that ask a run to stop: a handler only sets a flag, which the loop finds at the next step border."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

from job.errors import EXIT_INTERRUPTED
from job.events import StopReason

_ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class SignalStop:
    """Installs the handlers of the foreground command; the instance is the loop's `stop`.

    A second Ctrl-C leaves at once without saving. SIGHUP stays ignored where it was, as under nohup.

    A context manager: after it all but Ctrl-C are ignored, to the very end of the process, so that none that comes on the
    way out turns the exit code of a finished run into that of a killed one.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in _ASKING:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        signal.signal(signal.SIGINT, self._interrupt)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)

    def __call__(self) -> StopReason | None:
        """Why to stop, None as long as no signal has come."""
        if self.signal is None:
            return None
        return "interrupt" if self.signal == signal.SIGINT else "terminated"

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.signal == signal.SIGINT:
            os.write(sys.stderr.fileno(), b"\nleft without saving; the same command goes on from the last checkpoint\n")
            os._exit(EXIT_INTERRUPTED)
        os.write(sys.stderr.fileno(), b"\nsaving at the next step border; Ctrl-C again leaves at once without saving\n")
        self._ask(number, frame)
