"""What the scheduler says of watched runs: asked rarely, by a thread, so that nobody waits for its answer."""

import threading
import time
from collections.abc import Hashable
from contextlib import suppress

from job.rundir.directory import RunDir
from slurm.login.clusters import Queues
from slurm.scheduler.queue import Job

EVERY_S = 30.0
SOONEST_S = 5.0  # where the runs themselves tell that something has changed
_TIMEOUT_S = 10.0


class RareQueue:
    """Asks for this user's jobs every EVERY_S, and sooner when `why` has changed since.

    `asked_s` is the monotonic time of the question that was answered last, None before the first answer.
    """

    def __init__(self) -> None:
        self.asked_s: float | None = None
        self._queues: Queues | None = None
        self._why: Hashable = None
        self._last_s = float("-inf")
        self._thread: threading.Thread | None = None

    def ask_if_due(self, run_dirs: list[RunDir], why: Hashable) -> None:
        """Ask where jobs of these runs may be, if it is time to; returns at once."""
        waited_s = time.monotonic() - self._last_s
        if (self._thread is not None and self._thread.is_alive()) or waited_s < SOONEST_S:
            return
        if waited_s >= EVERY_S or why != self._why:
            self._why, self._last_s = why, time.monotonic()
            self._thread = threading.Thread(target=self._ask, args=(run_dirs, self._last_s), daemon=True)
            self._thread.start()

    def _ask(self, run_dirs: list[RunDir], asked_s: float) -> None:
        queues = Queues(_TIMEOUT_S)
        for run_dir in run_dirs:
            with suppress(OSError):
                queues.of_run(run_dir)
        self._queues, self.asked_s = queues, asked_s

    def jobs_of(self, run_dir: RunDir) -> list[Job] | None:
        """What was answered where a run's jobs may be; None if nothing was, or nothing yet."""
        return self._queues.of_run(run_dir) if self._queues is not None else None

    def wait(self, seconds: float) -> None:
        """Wait for the answer to what has been asked, so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)
