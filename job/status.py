"""status.json: what a run is doing now, in one small file that is replaced at least every 10 s."""

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from job.errors import AaeError
from job.events import Verdict
from job.machine import peak_memory_bytes
from job.rundir import FULL, RunDir

HEARTBEAT_S = 5.0
_BLOCK_BYTES = 4096

State = Literal["submitted", "running", "waiting", "finished", "failed", "cancelled"]


def now() -> str:
    """The time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Status(BaseModel):
    """The content of status.json.

    `reason` is one word for programs, `verdict` a sentence for people, while training about saturation, then about the end;
    `saturation` is that verdict in one word, null before training; `step` and `checkpoint_step` count optimiser
    steps, done and saved; `eta_s` is in seconds, null when unknown. `peak_memory_bytes` is the most main memory that the
    process has held; `crash` tells the story of the error that ended the last segment, null if none did.
    """

    model_config = ConfigDict(extra="ignore")

    state: State
    reason: str | None = None
    saturation: Verdict | None = None
    verdict: str | None = None
    exit_code: int | None = None
    step: int = 0
    checkpoint_step: int | None = None
    total_steps: int
    segment: int = 0
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    updated_at: str = ""
    eta_s: float | None = None
    device: str | None = None
    peak_memory_bytes: int | None = None
    crash: dict[str, Any] | None = None


def read_status(run_dir: RunDir) -> Status | None:
    """The status of a run, or None if there is none that can be read."""
    try:
        return Status.model_validate_json(run_dir.status_file.read_bytes())
    except (OSError, ValidationError):
        return None


def write_status(run_dir: RunDir, status: Status) -> None:
    """Replace status.json; raises OSError or TakenOverError.

    Where the disk is full the file is written over in place, in the block that it has: readers still see a sign of life and
    the verdict.
    """
    try:
        # Not synced: a heartbeat that a power cut takes away is worth nothing afterwards.
        run_dir.replace(run_dir.status_file, _encoded(status), sync=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        content = _encoded(status)
        if len(content) > _BLOCK_BYTES:
            content = _encoded(status.model_copy(update={"crash": None}))
        run_dir.overwrite(run_dir.status_file, content)


def _encoded(status: Status) -> bytes:
    return status.model_dump_json(indent=1).encode() + b"\n"


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
        """Write the first status and keep it fresh."""
        self.write()
        self._thread.start()

    def write(self, **changes: Any) -> None:
        """Change some keys and replace the file; raises OSError or TakenOverError."""
        with self._lock:
            known = {"peak_memory_bytes": peak_memory_bytes(), **self.progress(), **changes, "updated_at": now()}
            self.status = self.status.model_copy(update=known)
            write_status(self._run_dir, self.status)

    def end(self) -> None:
        """Stop the thread; what was written last stands."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                # A full or absent disk must not end training, nor a moment without memory; the next beat tries again.
                with contextlib.suppress(OSError, MemoryError):
                    self.write()
                    self.cancelled = self._run_dir.cancel_mark.exists()
            except AaeError as error:
                self.error = error
                return
