"""What a run's state is, from its directory and, if it answers, the scheduler."""

import contextlib
import json
import shlex
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from job.rundir.directory import RunDir
from job.rundir.small_file import names_in
from job.rundir.status import Status, read_status
from job.rundir.sweep import Sweeps, printed_by
from slurm.login.holder import Life, jobs_of, live_jobs_of, local_controller, process_of
from slurm.login.unbegun import death_before_beginning, newest_job_id
from slurm.scheduler.queue import Job
from slurm.scheduler.reasons import explained, helpless

LOST_AFTER_S = 120.0
_NO_JOB = "no job in the queue: submit again"


@dataclass(frozen=True)
class Shown:
    """A run as readers show it: the stored status, the state it amounts to, and what a person has to know."""

    run_dir: RunDir
    status: Status
    state: str
    note: str
    needs_person: bool
    job_id: str | None
    pending_reason: str | None = None
    next: str | None = None

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that it is an element of, that which was submitted last of several; None if of none."""
        found = Sweeps(self.run_dir.path.parent).of(self.run_dir.path.name)
        return found[-1][1].name if found else None

    def as_json(self) -> dict[str, Any]:
        """Every key of status.json, and what readers add."""
        return {
            "run": self.run_dir.path.name,
            "run_dir": str(self.run_dir.path),
            "sweep": self.sweep,
            **json.loads(self.status.model_dump_json()),
            "state": self.state,
            "job_id": self.job_id,
            "size_bytes": size_bytes(self.run_dir),
            "heartbeat_age_s": round(heartbeat_age_s(self.status), 1),
            "progress_age_s": round(age, 1) if (age := progress_age_s(self.status)) is not None else None,
            "pending_reason": self.pending_reason,
            "needs_person": self.needs_person,
            "next": self.next,
        }


def size_bytes(run_dir: RunDir) -> int:
    """About what a run takes on disk: all its files but the lattices, which are as many times the latest one."""
    total = 0
    folders = (run_dir.path, run_dir.checkpoints, run_dir.final, run_dir.evaluations, run_dir.slurm)
    for path in (folder / name for folder in folders for name in names_in(folder)):
        with contextlib.suppress(FileNotFoundError):  # it is being replaced
            found = path.stat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    names = names_in(run_dir.lattices)
    return total + (len(names) * run_dir.latest_lattice.stat().st_size if run_dir.latest_lattice.name in names else 0)


def heartbeat_age_s(status: Status) -> float:
    """Seconds since status.json was written."""
    return (datetime.now(UTC) - datetime.fromisoformat(status.updated_at)).total_seconds()


def progress_age_s(status: Status) -> float | None:
    """Seconds since the step was last seen to grow; None if it never was."""
    if status.progress_at is None:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(status.progress_at)).total_seconds()


def show(run_dir: RunDir, jobs: list[Job] | None) -> Shown | None:
    """The state of a run; `jobs` is what the scheduler says, None if it is away. None for a run without a status."""
    status = read_status(run_dir)
    if status is None:
        return None
    job_id = _job_id(run_dir, status)
    job = _job(run_dir, job_id, jobs)
    state, note = _state(run_dir, status, job_id, job, jobs)
    has_job = job is not None and (job.is_pending or job.is_alive)
    waits_for_nothing = state == "waiting" and not has_job and (jobs is not None or not _is_slurms(job_id))
    stuck = helpless(job.state, job.reason) if job is not None and job.is_pending else None
    needs_person = state in ("failed", "lost") or waits_for_nothing or stuck is not None
    following = "aae-slurm submit" if needs_person else None
    if job is not None and stuck is not None:
        following = stuck.next.format(job=job.job_id, run=shlex.quote(str(run_dir.path)))
        if job.cluster:
            following = following.replace("scontrol ", f"scontrol -M {job.cluster} ", 1)
        note = f"{note}: {stuck.sentence}; next: {following}"
    return Shown(
        run_dir,
        status,
        state,
        note,
        needs_person,
        job.job_id if job else job_id,
        job.reason if job is not None and job.is_pending else None,
        following,
    )


def _job_id(run_dir: RunDir, status: Status) -> str | None:
    """The run's job: the one that runs or ran it, or a later one that has not started yet."""
    submitted = newest_job_id(run_dir)
    if status.state == "submitted" or status.job_id is None:
        return submitted
    return status.job_id


def _job(run_dir: RunDir, job_id: str | None, jobs: list[Job] | None) -> Job | None:
    """The scheduler's view: a live or pending job of this run if there is one, else the run's last job."""
    own = jobs_of(run_dir, jobs or [])
    live = live_jobs_of(run_dir, own)
    return next(iter(live or [job for job in own if job_id in (job.job_id, job.number)]), None)


def _state(
    run_dir: RunDir, status: Status, job_id: str | None, job: Job | None, jobs: list[Job] | None
) -> tuple[str, str]:
    """The contract's rules, the first that fits."""
    stored: str = status.state
    if stored in ("finished", "failed", "cancelled"):
        return stored, ""
    if job is not None and job.is_pending:
        return ("submitted" if status.segment == 0 else "waiting"), f"pending ({explained(job.reason)})"
    if job is not None and job.is_alive:
        return stored, f"suspended; `scontrol resume {job.job_id}` lets it go on" if job.state == "SUSPENDED" else ""
    if not _is_slurms(job_id):
        return _without_slurm(run_dir, status, jobs)
    if jobs is None:
        return stored, "the scheduler does not answer"
    if stored == "running":
        if job is not None and job.is_cancelled:
            return "cancelled", ""
        if job is not None or heartbeat_age_s(status) > LOST_AFTER_S or process_of(run_dir)[1] is Life.GONE:
            printed = printed_by(run_dir, job_id)
            where = f" (what it printed: {printed})" if printed.exists() else ""
            return "lost", f"its job has ended without a word: submit again{where}"
        return stored, "its job is not in the queue"
    death = death_before_beginning(run_dir, job_id)
    return "waiting", _NO_JOB if death is None else f"{death}; mend that and submit again"


def _is_slurms(job_id: str | None) -> bool:
    return job_id is not None and not job_id.startswith("local-")


def _without_slurm(run_dir: RunDir, status: Status, jobs: list[Job] | None) -> tuple[str, str]:
    if status.state == "submitted" and jobs is not None and heartbeat_age_s(status) > LOST_AFTER_S:
        # A submitter that died on its way has left no job.
        return ("waiting", _NO_JOB) if local_controller(run_dir) is None else (status.state, "")
    if status.state != "running":
        return status.state, ""
    _, life = process_of(run_dir)
    if life is Life.GONE or (life is Life.UNKNOWN and heartbeat_age_s(status) > LOST_AFTER_S):
        return "lost", "its process has ended without a word; start it again"
    return status.state, ""
