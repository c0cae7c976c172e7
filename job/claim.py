"""One writer a run: each start claims a segment number by exclusive creation, and only the newest claim may write.

Nothing here needs a lock of the filesystem, and claims are looked up by name, since the listing of a shared folder may
lag. A crash leaves a claim that the next start finds dead: at once on the same host, else by a heartbeat that stands still.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from job.errors import TakenOverError
from job.rundir import RunDir
from job.status import read_status

TAKEOVER_S = 60.0
POLL_S = 0.5


class Owner(BaseModel):
    """The process that holds a claim, in terms that another process can check."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_start: str
    job_id: str | None = None
    restart_count: int = 0
    released: bool = False

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
        if self.released:
            return True
        if self.job_id is not None and self.job_id == successor.job_id and self.restart_count < successor.restart_count:
            return True
        same_machine = (self.host, self.boot_id, self.pid_namespace) == (
            successor.host,
            successor.boot_id,
            successor.pid_namespace,
        )
        return same_machine and _process_start(self.pid) != self.process_start

    def __str__(self) -> str:
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on host {self.host}{job}"


class Claim:
    """The right to write in a run directory, until a newer claim appears."""

    def __init__(self, run_dir: RunDir, segment: int, owner: Owner) -> None:
        self.segment = segment
        self._run_dir = run_dir
        self._owner = owner

    def check(self) -> None:
        """Raise TakenOverError if a later start has claimed the run."""
        if self._run_dir.claim_file(self.segment + 1).exists():
            raise TakenOverError(
                f"{self._run_dir.path}: segment {self.segment + 1} has taken this run over while segment {self.segment} "
                f"({self._owner}) did not answer; this process writes nothing more. The run goes on there"
            )

    def release(self) -> None:
        """Tell the next start that it need not wait."""
        released = self._owner.model_copy(update={"released": True})
        self._run_dir.replace(self._run_dir.claim_file(self.segment), released.model_dump_json().encode())


def claim_run(run_dir: RunDir, owner: Owner, tell: Callable[[str], None] = lambda _: None) -> Claim:
    """Become the writer of a run; raises TakenOverError, naming the holder, if another process lives.

    Waits up to TAKEOVER_S for a sign of life of a holder that cannot be checked; `tell` gets a line about it.
    """
    status = read_status(run_dir)
    segment = status.segment if status else 0
    while True:
        while run_dir.claim_file(segment + 1).exists():
            segment += 1
        if segment > 0:
            _wait_for_end(run_dir, segment, owner, tell)
        try:
            create_exclusively(run_dir.claim_file(segment + 1), owner.model_dump_json().encode())
        except FileExistsError:
            continue
        return Claim(run_dir, segment + 1, owner)


def _wait_for_end(run_dir: RunDir, segment: int, owner: Owner, tell: Callable[[str], None]) -> None:
    """Return when the holder of `segment` writes no more or a newer claim appears; raise if it shows life."""
    holder = read_owner(run_dir.claim_file(segment))
    before = read_status(run_dir)
    deadline = time.monotonic() + TAKEOVER_S
    told = False
    while not (holder is not None and holder.is_over(owner)) and time.monotonic() < deadline:
        if run_dir.claim_file(segment + 1).exists():
            return
        current = read_status(run_dir)
        if current != before and current is not None and current.state == "running":
            raise TakenOverError(
                f"{run_dir.path}: {holder or 'another process'} is writing this run; "
                "wait for it or stop it (Ctrl-C or SIGTERM there), then type the same command again"
            )
        if not told:
            tell(f"waiting up to {TAKEOVER_S:.0f} s for a sign of life of {holder or 'the last segment'}")
            told = True
        time.sleep(POLL_S)
        holder = read_owner(run_dir.claim_file(segment))


def create_exclusively(path: Path, content: bytes) -> None:
    """Create a file that must not exist; raises FileExistsError. Of several at once, on any machine, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_owner(path: Path) -> Owner | None:
    """The owner of a claim; None if the file is gone or its writer was killed before it had written."""
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
