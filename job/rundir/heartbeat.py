"""The sign of life of a running segment: status.json, replaced every few seconds by a thread of its own."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from job.errors import AaeError
from job.machine import peak_memory_bytes
from job.rundir.directory import RunDir
from job.rundir.small_file import exists
from job.rundir.status import Status, now, write_status

HEARTBEAT_S = 5.0


class Heartbeat:
    """Keeps status.json fresh from a thread, from the claim to the segment's end.

    `progress` answers the keys that training moves and is set once training has begun. `error` is what the thread met
    when it found that this process is no longer the writer; the training loop raises it at the next step border.
    `cancelled` tells that a beat has seen a cancel mark.
    """

    def __init__(self, run_dir: RunDir, status: Status) -> None:
        self.status = status
        self.error: AaeError | None = None
        self.cancelled = False
        self.progress: Callable[[], dict[str, Any]] = dict
        self._run_dir = run_dir
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Keep the status fresh from now on."""
        self._thread.start()

    def write(self, **changes: Any) -> None:
        """Change some keys and replace the file; raises OSError or TakenOverError."""
        with self._lock:
            known = {"peak_memory_bytes": peak_memory_bytes(), **self.progress(), **changes, "updated_at": now()}
            if known.get("step", self.status.step) != self.status.step:
                known["progress_at"] = known["updated_at"]
            self.status = self.status.model_copy(update=known)
            write_status(self._run_dir, self.status)

    def end(self) -> None:
        """Stop the thread; what was written last stands."""
        self._ended.set()
        if self._thread.is_alive():  # not where even the first status could not be written
            self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                # A full or absent disk must not end training, nor a moment without memory; the next beat tries again.
                with contextlib.suppress(OSError, MemoryError):
                    self.write()
                    self.cancelled = exists(self._run_dir.cancel_mark)
            except AaeError as error:
                self.error = error
                return
