"""A watch on a terminal: drawn anew every second, and when the terminal gets another size; the last view stays."""

import codecs
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live

from job.output import as_it_stands, rest
from slurm.login.watch.look import Look
from slurm.login.watch.sparkline import ASCII, BLOCKS, Ink
from slurm.login.watch.view import Page, page_of_run, page_of_sweep

TICK_S = 0.1  # within which another size of the terminal, or Ctrl-Z, is noticed


class Screen:
    """A context manager around the watch; `draw` shows, `rest` waits for the next look."""

    def __init__(self, sweep: str | None) -> None:
        self._sweep = sweep
        self._ink = ink()
        # What an exported COLUMNS says would be true of the size at the start.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._console = Console(
            file=as_it_stands(), force_terminal=True, highlight=False, markup=False, _environ=environment
        )
        self._live: Live | None = None
        self._looks: list[Look] = []
        self._stop_asked = False

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTSTP, self._ask_to_stop)
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._close()

    def draw(self, looks: list[Look]) -> None:
        """Show how the runs are."""
        self._looks = looks
        if self._live is not None:
            self._live.update(self._group(self._console.size.height), refresh=True)

    def leave_standing(self, num_lines_below: int) -> None:
        """Print the last view where it stays, with room for so many lines below it and the next prompt."""
        if self._looks:
            self._console.print(self._group(self._console.size.height - num_lines_below - 2))

    def rest(self, seconds: float) -> None:
        """Wait, and draw again what is shown if the terminal gets another size."""
        size = self._console.size
        for _ in range(round(seconds / TICK_S)):
            rest(TICK_S)
            if self._stop_asked:
                self._stop()
                self.draw(self._looks)
            elif self._console.size != size:
                size = self._console.size
                self.draw(self._looks)

    def _group(self, height: int) -> Group:
        width = self._console.size.width
        return Group(*self._page(width, height).fitted(max(height, 1)))

    def _page(self, width: int, height: int) -> Page:
        if self._sweep is None:
            return page_of_run(self._looks[0], width, self._ink)
        return page_of_sweep(self._sweep, self._looks, width, height, self._ink)

    def _open(self) -> None:
        # On a screen of its own: elsewhere what a narrower terminal wraps would stay behind.
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
            vertical_overflow="crop",
        )  # fmt: skip
        self._live.start()

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _ask_to_stop(self, _: int, __: FrameType | None) -> None:
        self._stop_asked = True

    def _stop(self) -> None:
        """Stop as Ctrl-Z asks, with the terminal as the shell wants it, until `fg`."""
        self._stop_asked = False
        self._close()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._ask_to_stop)
        self._open()


def ink() -> Ink:
    """What can be drawn with in this locale: Python takes UTF-8 for C, whose terminal need not know a block."""
    environment = dict(os.environ)
    with suppress(OSError):  # as it was before Python has set LC_CTYPE
        pairs = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
        environment = dict(pair.partition("=")[::2] for pair in pairs)
    named = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or "C"
    if named in ("C", "POSIX"):
        return ASCII
    return BLOCKS if codecs.lookup(sys.stdout.encoding).name == "utf-8" else ASCII
