"""Ends a process whose step never ends: a lost GPU or a dead file server leaves it alive, and its heartbeat with it."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Protocol

from job.output import say_at_once

FACTOR = 20.0  # how many times the slowest step seen a step may take ...
AT_LEAST_S = 600.0  # ... and what it may take in any case, unless AAE_STEP_LIMIT_S says otherwise
LAST_S = 5.0  # at the end of the allocation a step may take no more, or twice the slowest seen
POLL_S = 1.0
STILL_S = 10.0  # a look that comes so much later tells of a process that stood still
STORY_S = 30.0  # how long the story may take to be written, where it is the disk that hangs
TELL_S = 65.0  # and then AAE_ON_END


class Steps(Protocol):
    """What is watched: since when a step is being computed, None between steps, and the slowest one seen, in seconds.

    `stood_still` is called with the seconds in which the whole process made nothing, as under `scontrol suspend`.
    """

    computing_since: float | None
    slowest_step_s: float

    def stood_still(self, seconds: float) -> None: ...


class Watchdog:
    """A thread beside the loop; `ends_at` is when the allocation is nearly over, in seconds since the epoch: a step that hangs then
    is not waited for, or nobody would be left to have the job started again. `hangs` is called once, in a thread of its own,
    with what is to be told of it, and answers the exit code; `tell` is called then, in another.

    The process then ends, with exit code 1 where `hangs` does not return. Time in which the whole process stood still, as
    under `scontrol suspend`, does not count: between two looks no more than two of their intervals are believed.
    """

    def __init__(
        self, limit_s: float | None, hangs: Callable[[str, str], int], tell: Callable[[], None] = lambda: None
    ) -> None:
        self.ends_at: float | None = None
        self._limit_s = limit_s
        self._hangs = hangs
        self._tell = tell
        self._ended = threading.Event()
        self._main = threading.main_thread().ident

    def watch(self, steps: Steps) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, args=(steps,), name="watchdog", daemon=True).start()

    def end(self) -> None:
        """The loop has ended: nothing hangs from here on."""
        self._ended.set()

    def _limit(self, steps: Steps) -> float:
        return self._limit_s if self._limit_s is not None else max(AT_LEAST_S, FACTOR * steps.slowest_step_s)

    def _watch(self, steps: Steps) -> None:
        watched, took_s, looked = None, 0.0, time.monotonic()
        while True:
            poll_s = min(POLL_S, self._limit(steps) / 4)
            if self._ended.wait(poll_s):
                return
            now = time.monotonic()
            if now - looked > poll_s + STILL_S:
                steps.stood_still(now - looked - poll_s)
            if steps.computing_since is None or steps.computing_since != watched:
                watched, took_s = steps.computing_since, 0.0
            else:
                took_s += min(now - looked, 2 * poll_s)
            looked = now
            limit_s, until = self._limit(steps), "AAE_STEP_LIMIT_S allows"
            last_s = max(LAST_S, 2 * steps.slowest_step_s)
            if self.ends_at is not None and time.time() > self.ends_at and last_s < limit_s:
                limit_s, until = last_s, "there is time for at the end of the allocation"
            if watched is not None and took_s > limit_s:
                self._end_process(f"a step has taken {took_s:.0f} s, more than {until}")
                return

    def _end_process(self, what: str) -> None:
        frame = sys._current_frames().get(self._main or 0)
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        told = f"{what}, so the process ended itself; a GPU that is lost, or a file server that does not answer, look like this"
        say_at_once(f"{told}\n{where[-3000:]}")
        exit_codes: list[int] = []
        story = threading.Thread(target=lambda: exit_codes.append(self._hangs(told, where)), name="story", daemon=True)
        story.start()
        story.join(STORY_S)
        if exit_codes:
            telling = threading.Thread(target=self._tell, name="telling", daemon=True)
            telling.start()
            telling.join(TELL_S)
        os._exit(exit_codes[0] if exit_codes else 1)
