"""Who a process is, in terms that another process, on another host or after a reboot, can check."""

import os
import socket
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from job.rundir.small_file import DamagedError, read_json


class Owner(BaseModel):
    """A process, in terms that another process can check."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_start: str
    cluster: str | None = None
    job_id: str | None = None
    job_number: str | None = None
    job_submitted: str | None = None
    job_script: str | None = None
    node: str | None = None
    mem_mb: int | None = None
    restart_count: int = 0

    @classmethod
    def this_process(cls, job_id: str | None = None, restart_count: int = 0, **job: Any) -> "Owner":
        """This process; `job_id` and what else is given as the scheduler counts, if one started it."""
        return cls(
            host=socket.gethostname(),
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            pid_namespace=str(Path("/proc/self/ns/pid").readlink()),
            pid=os.getpid(),
            process_start=process_start_of(os.getpid()) or "",
            job_id=job_id,
            restart_count=restart_count,
            **job,
        )

    def is_over(self, successor: "Owner") -> bool:
        """Whether `successor`, this process, can tell for sure that the owner writes no more."""
        if self.is_earlier_start(successor):
            return True
        return self._is_beside(successor) and process_start_of(self.pid) != self.process_start

    def lives(self, observer: "Owner") -> bool:
        """Whether `observer`, this process, can tell for sure that the owner is another process, and alive."""
        return (
            self.pid != observer.pid and self._is_beside(observer) and process_start_of(self.pid) == self.process_start
        )

    def is_before_reboot(self, observer: "Owner") -> bool:
        """Whether the host of both has been started anew since."""
        return self.host == observer.host and self.boot_id != observer.boot_id

    def _is_beside(self, other: "Owner") -> bool:
        """Whether both see the same processes under the same ids."""
        return (self.host, self.boot_id, self.pid_namespace) == (other.host, other.boot_id, other.pid_namespace)

    def is_same_start(self, other: "Owner") -> bool:
        """Whether both were begun by one start of one job."""
        return self.is_of_job(other) and self.restart_count == other.restart_count

    def is_of_job(self, of: "Owner") -> bool:
        """Whether it was started in the job of another owner; an earlier version called a job by its number."""
        return bool(({self.job_id, self.job_number} & {of.job_id, of.job_number}) - {None})

    def is_earlier_start(self, of: "Owner") -> bool:
        """Whether this is an earlier start of the same job: a scheduler ends one before it begins the next."""
        return self.is_of_job(of) and self.restart_count < of.restart_count

    def told(self) -> dict[str, Any]:
        """Where it runs, as status.json and the log tell it."""
        return self.model_dump(include={"job_id", "host", "pid"})

    def __str__(self) -> str:
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on host {self.host}{job}"


def read_owner(path: Path) -> Owner | None:
    """The process that a file names; None if the file is gone or damaged. Raises OSError if it cannot be read now."""
    try:
        return read_json(path, Owner)
    except DamagedError:
        return None


def process_start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), field 22); None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from field 3, the state, on
    return None if fields[0] in "ZX" else fields[19]
