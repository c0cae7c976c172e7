"""Who has a run: the jobs that are surely its own, and whether its process lives, is gone, or cannot be known to be either."""

import contextlib
import os
from enum import Enum
from pathlib import Path

from job.rundir.claim import newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from slurm.scheduler.queue import Job


class Life(Enum):
    """What can be told of a process from here; a job or process that is `UNKNOWN` is neither signalled nor taken for dead."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def jobs_of(run_dir: RunDir, jobs: list[Job]) -> list[Job]:
    """The jobs that are a run's own: by where their script lies and, of a sweep's, its sweep.json; or by the run's newest claim.

    Never by a number.
    """
    if not jobs:
        return []
    segment = read_segment(run_dir, newest_claim(run_dir))
    owner = segment.owner if segment is not None and segment.cause != "elsewhere" else None
    path = os.path.realpath(run_dir.path)
    return [job for job in jobs if job.run == path or (owner is not None and job.is_of(owner))]


def live_jobs_of(run_dir: RunDir, jobs: list[Job]) -> list[Job]:
    """Those that run, or wait to; one that runs comes first."""
    live = [job for job in jobs_of(run_dir, jobs) if job.is_pending or job.is_alive]
    return sorted(live, key=lambda job: job.is_pending)


def process_of(run_dir: RunDir) -> tuple[Owner | None, Life]:
    """The process of a run's newest segment, None if it never had one, and whether it lives."""
    segment = read_segment(run_dir, newest_claim(run_dir))
    if segment is None:
        return None, Life.GONE
    me = Owner.this_process()
    if segment.is_over(me) or segment.owner.is_before_reboot(me):
        return segment.owner, Life.GONE
    return segment.owner, Life.ALIVE if segment.owner.lives(me) else Life.UNKNOWN


def local_controller(run_dir: RunDir) -> int | None:
    """The process id of submitit's local controller of this run, None if none lives here."""
    for path in run_dir.slurm.glob("*_submitted.pkl"):
        pid = path.name.removesuffix("_submitted.pkl")
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"submitit.local._local" in command and str(run_dir.slurm).encode() in command:
                return int(pid)
    return None
