"""The time spent training, over all segments, and what it says of the speed."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Runs while training does; what is between two segments does not count."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._began: float | None = None
        self.still_s = 0.0  # in which this process stood still; counted nowhere
        self._first = self._last_lap = (0, 0.0)  # (step, elapsed_s) when this process began, and at the last lap

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, over all segments."""
        return self._before_s + (self._now() - self._began if self._began is not None else 0.0)

    def _now(self) -> float:
        return time.perf_counter() - self.still_s

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count for as long as the block lasts."""
        self._began = self._now()
        try:
            yield
        finally:
            self._before_s = self.elapsed_s
            self._began = None

    def stood_still(self, seconds: float) -> None:
        """Do not count so many seconds up to now.

        Another thread tells of them, before the next lap or after it, and of those too that were over before this began to run.
        """
        self.still_s += seconds
        if self._began is not None:
            self._began = min(self._began, self._now())
        step, lap_s = self._last_lap
        self._last_lap = (step, lap_s - seconds if lap_s > self.elapsed_s else lap_s)

    def lap(self, step: int) -> float:
        """Steps a second since the last lap, or since this process began."""
        (last_step, last_s), self._last_lap = self._last_lap, (step, self.elapsed_s)
        took_s = self._last_lap[1] - last_s
        return (step - last_step) / took_s if took_s > 0 else 0.0  # told of standing still in between

    def step_ms(self, step: int) -> float | None:
        """Milliseconds a step in this process, all that trains beside it included; None before it has made one."""
        first_step, first_s = self._first
        return 1000 * (self.elapsed_s - first_s) / (step - first_step) if step > first_step else None

    def num_steps(self, step: int) -> int:
        """Steps that this process has made."""
        return step - self._first[0]

    def go_on_from(self, step: int, elapsed_s: float) -> None:
        """Go on from where a checkpoint was made."""
        self._before_s = elapsed_s
        self._first = self._last_lap = (step, elapsed_s)
