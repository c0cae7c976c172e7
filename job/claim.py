"""One writer a run: each start claims a segment number by exclusive creation, and only the newest claim may write.

Nothing here needs a lock of the filesystem, and claims are looked up by name, since the listing of a shared folder may
lag. A crash leaves a claim that the next start finds dead: at once on the same host, else by a heartbeat that stands still.
"""

import contextlib
import errno
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from job.errors import TakenOverError
from job.rundir import RunDir
from job.status import read_status

# How a segment ended: a reason to stop, an end of its own, or what became of it.
Cause = Literal[
    "finished",
    "saturated",
    "time_limit",
    "preemption",
    "requeue",
    "cancel",
    "interrupt",
    "terminated",
    "refused",
    "exception",
    "out_of_memory",
    "killed",
    "hopeless",
]

TAKEOVER_S = 60.0
POLL_S = 0.5


class Owner(BaseModel):
    """A process, in terms that another process can check."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_start: str
    job_id: str | None = None
    restart_count: int = 0

    @classmethod
    def this_process(cls, job_id: str | None = None, restart_count: int = 0) -> "Owner":
        """This process; `job_id` and `restart_count` as the scheduler counts them, if one started it."""
        return cls(
            host=socket.gethostname(),
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            pid_namespace=str(Path("/proc/self/ns/pid").readlink()),
            pid=os.getpid(),
            process_start=_process_start(os.getpid()) or "",
            job_id=job_id,
            restart_count=restart_count,
        )

    def is_over(self, successor: "Owner") -> bool:
        """Whether `successor`, this process, can tell for sure that the owner writes no more."""
        if self.is_earlier_start(successor):
            return True
        return self._is_beside(successor) and _process_start(self.pid) != self.process_start

    def lives(self, observer: "Owner") -> bool:
        """Whether `observer`, this process, can tell for sure that the owner is another process, and alive."""
        return self.pid != observer.pid and self._is_beside(observer) and _process_start(self.pid) == self.process_start

    def _is_beside(self, other: "Owner") -> bool:
        """Whether both see the same processes under the same ids."""
        return (self.host, self.boot_id, self.pid_namespace) == (other.host, other.boot_id, other.pid_namespace)

    def is_start(self, job_id: str, restart_count: int) -> bool:
        """Whether it was started as this very start of a job."""
        return (self.job_id, self.restart_count) == (job_id, restart_count)

    def is_earlier_start(self, of: "Owner") -> bool:
        """Whether this is an earlier start of the same job: a scheduler ends one before it begins the next."""
        return self.job_id is not None and self.job_id == of.job_id and self.restart_count < of.restart_count

    def __str__(self) -> str:
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on host {self.host}{job}"


class Segment(BaseModel):
    """What stands in a claim: whose it is and, as far as that is known, from where the segment went on and how it ended.

    `from_step` is the step it went on from and `began_at` when, in seconds since the epoch, None before it has loaded;
    `cause` is None while it lives, and for ever if it
    died without a word. `failed_at` is the step that an exception ended.
    """

    owner: Owner
    from_step: int | None = None
    began_at: float | None = None
    cause: Cause | None = None
    failed_at: int | None = None

    def is_over(self, successor: Owner) -> bool:
        """Whether `successor`, this process, can tell for sure that the segment writes no more."""
        return self.cause is not None or self.owner.is_over(successor)


def read_segment(run_dir: RunDir, number: int) -> Segment | None:
    """What stands in a claim; None if there is none, or none that can be read."""
    try:
        return Segment.model_validate_json(run_dir.claim_file(number).read_bytes())
    except (OSError, ValidationError):
        return None


class Claim:
    """The right to write in a run directory as one segment, until a newer claim appears."""

    def __init__(self, run_dir: RunDir, number: int, segment: Segment) -> None:
        self.number = number
        self.segment = segment
        self._run_dir = run_dir

    def check(self) -> None:
        """Raise TakenOverError if a later start has claimed the run."""
        if self._run_dir.claim_file(self.number + 1).exists():
            raise TakenOverError(
                f"{self._run_dir.path}: segment {self.number + 1} has taken this run over while segment {self.number} "
                f"({self.segment.owner}) did not answer; this process writes nothing more. The run goes on there"
            )

    def note(self, **changes: Any) -> None:
        """Write down what is known of the segment now; a `cause` tells the next start that it need not wait."""
        self.segment = self.segment.model_copy(update=changes)
        self._run_dir.replace(self._run_dir.claim_file(self.number), self.segment.model_dump_json().encode())


def newest_claim(run_dir: RunDir) -> int:
    """The number of the newest segment, 0 if there is none; looked up by name."""
    status = read_status(run_dir)
    number = status.segment if status else 0
    while run_dir.claim_file(number + 1).exists():
        number += 1
    return number


def claim_run(run_dir: RunDir, owner: Owner, tell: Callable[[str], None] = lambda _: None) -> Claim:
    """Become the writer of a run; raises TakenOverError, naming the holder, if another process lives.

    Waits up to TAKEOVER_S for a sign of life of a holder that cannot be checked; `tell` gets a line about it.
    """
    while True:
        newest = newest_claim(run_dir)
        if newest > 0:
            _wait_for_end(run_dir, newest, owner, tell)
        segment = Segment(owner=owner)
        try:
            create_exclusively(run_dir.claim_file(newest + 1), segment.model_dump_json().encode())
        except FileExistsError:
            time.sleep(POLL_S)  # a shared filesystem may show the other's claim a moment later
            continue
        return Claim(run_dir, newest + 1, segment)


def _wait_for_end(run_dir: RunDir, number: int, owner: Owner, tell: Callable[[str], None]) -> None:
    """Return when the holder of a segment writes no more or a newer claim appears; raise if it shows life."""
    holder = read_segment(run_dir, number)
    before = read_status(run_dir)
    deadline = time.monotonic() + TAKEOVER_S
    told = False
    while not (holder is not None and holder.is_over(owner)) and time.monotonic() < deadline:
        if run_dir.claim_file(number + 1).exists():
            return
        name = holder.owner if holder is not None else None
        current = read_status(run_dir)
        if current != before and current is not None and current.state == "running":
            raise TakenOverError(
                f"{run_dir.path}: {name or 'another process'} is writing this run; "
                "wait for it or stop it (Ctrl-C or SIGTERM there), then type the same command again"
            )
        if not told:
            tell(f"waiting up to {TAKEOVER_S:.0f} s for a sign of life of {name or 'the last segment'}")
            told = True
        time.sleep(POLL_S)
        holder = read_segment(run_dir, number)


def create_exclusively(path: Path, content: bytes) -> None:
    """Create a file that must not exist, whole; raises FileExistsError. Of several at once, on any machine, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _create(temporary, content)
        try:
            path.hardlink_to(temporary)
        except OSError as error:
            try:
                num_names = temporary.stat().st_nlink
            except FileNotFoundError:
                # Cleared away as a leftover by the run's writer: whoever wants the name is to look for that one.
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            # Over NFS the answer may get lost: two names mean that the link was made.
            if num_names == 2:
                return
            if error.errno not in _NO_LINKS:
                raise
            _create(path, content)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def read_owner(path: Path) -> Owner | None:
    """The process that a file names; None if the file is gone or cannot be read."""
    try:
        return Owner.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _process_start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), field 22); None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from field 3, the state, on
    return None if fields[0] in "ZX" else fields[19]
