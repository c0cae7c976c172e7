"""What a run's state is, from its directory and, if it answers, the scheduler."""

import contextlib
import json
import shlex
import stat
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from job.config.allocation import Allocation, megabytes
from job.config.settings_file import Record, allocation_of, read_record
from job.errors import AaeError
from job.rundir.directory import RunDir
from job.rundir.small_file import names_in
from job.rundir.status import State, Status, iso, read_status
from job.rundir.sweep import Sweeps, printed_by
from slurm.login.detectors import Finding, detect
from slurm.login.figures import Figures, figures_of
from slurm.login.forecast import Forecast, forecast_of
from slurm.login.holder import Life, jobs_of, live_jobs_of, local_controller, process_of
from slurm.login.unbegun import death_before_beginning, newest_job_id
from slurm.scheduler.queue import Job
from slurm.scheduler.reasons import Category, category_of, explained, helpless

ShownState = Literal[State, "lost"]

ENDED = ("finished", "failed", "cancelled")
LOST_AFTER_S = 120.0
_NO_JOB = "no job in the queue: submit again"


@dataclass(frozen=True)
class Shown:
    """A run as readers show it: the stored status, the state it amounts to, and what a person has to know.

    `job` is what the scheduler says of its job, None where it says nothing.
    """

    run_dir: RunDir
    status: Status
    state: ShownState
    note: str
    needs_person: bool
    job_id: str | None
    pending_reason: str | None = None
    job: Job | None = None

    def as_json(self) -> dict[str, Any]:
        """Every key of status.json, and what readers add; null where that is not known."""
        forecast, figures = self.forecast, self.figures
        progress_s = progress_age_s(self.status)
        return {
            "run": self.run_dir.path.name,
            "run_dir": str(self.run_dir.path),
            "sweep": self.sweep,
            **json.loads(self.status.model_dump_json()),
            "state": self.state,
            "job_id": self.job_id,
            "note": self.note or None,
            "size_bytes": size_bytes(self.run_dir),
            "heartbeat_age_s": round(heartbeat_age_s(self.status), 1),
            "progress_age_s": round(progress_s, 1) if progress_s is not None else None,
            "reconstruction_bce": figures.get("reconstruction_bce"),
            "evaluation": dict(figures) or None,
            "pending_reason": self.pending_reason,
            "pending_category": self.pending_category,
            "estimated_start": _iso(self.estimated_start),
            "node": self.node,
            "forecast": forecast.as_json() if forecast is not None else None,
            "ends_at": _iso(self.ends_at),
            "memory_bytes": self.memory_bytes,
            "detectors": [asdict(finding) for finding in self.findings],
            "needs_person": self.needs_person,
            "next": self.next,
        }

    @property
    def sweep(self) -> str | None:
        """The name of the sweep that it is an element of, that which was submitted last of several; None if of none."""
        found = Sweeps(self.run_dir.path.parent).of(self.run_dir.path.name)
        return found[-1][1].name if found else None

    @property
    def pending_category(self) -> Category | None:
        """Which kind of reason keeps its job waiting; None where no job of it waits."""
        job = self.job
        return category_of(job.state, job.reason) if job is not None and job.is_pending else None

    @property
    def estimated_start(self) -> float | None:
        """When Slurm expects to start its pending job, in seconds since the epoch; None where it does not say."""
        return self.job.starts_at if self.job is not None and self.job.is_pending else None

    @property
    def node(self) -> str | None:
        """Where its job runs, as Slurm calls it, else the host of its process; None where it does not run."""
        if self.job is not None and self.job.is_alive and self.job.node:
            return self.job.node
        return self.status.host if self.state == "running" else None

    @property
    def is_suspended(self) -> bool:
        """Whether its job stands still by an administrator's or its user's command."""
        return self.job is not None and self.job.state in ("SUSPENDED", "STOPPED")

    @cached_property
    def record(self) -> Record | None:
        """Its settings.json; None if there is none that this version can read."""
        try:
            return read_record(self.run_dir)
        except (AaeError, OSError):
            return None

    @cached_property
    def allocation(self) -> Allocation | None:
        """What it asks of Slurm; None for a run that no job of Slurm's trains, or where that is not known."""
        if self.record is None or not is_slurms(self.job_id):
            return None
        try:
            return allocation_of(self.record, self.run_dir)
        except AaeError:
            return None

    @property
    def memory_bytes(self) -> int | None:
        """The memory that its job asks for; None where nothing limits it, or that is not known."""
        asked = self.allocation.mem if self.allocation is not None else None
        with contextlib.suppress(ValueError):  # what sbatch alone understands
            return megabytes(asked) * 2**20 if asked is not None else None
        return None

    @cached_property
    def forecast(self) -> Forecast | None:
        """What is ahead of it, by what it has met so far; None where nothing is, or its pace is not known."""
        if self.state in ENDED:
            return None
        kept, allocation = self.status, self.allocation
        if kept.state == "running" and kept.limit_at is None and kept.started_at is not None and allocation is not None:
            # It is not told yet while torch is loaded.
            ends_at = datetime.fromisoformat(kept.started_at).timestamp() + allocation.time_min * 60
            kept = kept.model_copy(update={"limit_at": iso(ends_at)})
        return forecast_of(kept, allocation)

    @property
    def ends_at(self) -> float | None:
        """When it is expected to be finished, in seconds since the epoch; None where nobody can say, or it does not go on."""
        if self.forecast is None or self.needs_person or self.is_suspended:
            return None
        if self.job is not None and self.job.is_pending:
            starts_at = self.estimated_start
            return None if starts_at is None else max(starts_at, time.time()) + self.forecast.total_s
        goes_on = self.state == "running" or (self.job is not None and self.job.is_alive)
        return time.time() + self.forecast.total_s if goes_on else None

    @cached_property
    def figures(self) -> Figures:
        """Those of its newest evaluation; of a run of an earlier version from the end of its log."""
        return figures_of(self.run_dir, self.status)

    @cached_property
    def findings(self) -> list[Finding]:
        """What its last segments have in common that a person should know."""
        if self.state in ("finished", "cancelled") or self.status.segment < 2:
            return []
        return detect(self.run_dir, self.status, self.allocation, alive=self.state == "running")

    @cached_property
    def next(self) -> str | None:
        """The command to type next where it needs a person; None where none helps, or is needed."""
        if not self.needs_person:
            return None
        job = self.job
        stuck = helpless(job.state, job.reason) if job is not None and job.is_pending else None
        if job is None or stuck is None:
            return self.resumption
        command = stuck.next.format(job=job.job_id, run=shlex.quote(str(self.run_dir.path)))
        return command.replace("scontrol ", f"scontrol -M {job.cluster} ", 1) if job.cluster else command

    @cached_property
    def resumption(self) -> str | None:
        """The command that goes on with it as it was started; None where its settings cannot be read, or were what it failed of."""
        from slurm.login.resumption import command_to_go_on  # loads the parser of settings, which few need

        if self.record is None or self.status.reason == "nonfinite_loss":
            return None
        return command_to_go_on(self.run_dir, self.record, self.job_id)


def _iso(seconds: float | None) -> str | None:
    return iso(seconds) if seconds is not None else None


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
    waits_for_nothing = state == "waiting" and not has_job and (jobs is not None or not is_slurms(job_id))
    pending = job if job is not None and job.is_pending else None
    stuck = helpless(pending.state, pending.reason) if pending is not None else None
    return Shown(
        run_dir,
        status,
        state,
        note if stuck is None else f"{note}: {stuck.sentence}",
        state in ("failed", "lost") or waits_for_nothing or stuck is not None,
        job.job_id if job else job_id,
        pending.reason if pending is not None else None,
        job,
    )


def _job_id(run_dir: RunDir, status: Status) -> str | None:
    """The run's job: the one that runs or ran it, or a later one that has not started yet."""
    return newest_job_id(run_dir) if status.state == "submitted" or status.job_id is None else status.job_id


def _job(run_dir: RunDir, job_id: str | None, jobs: list[Job] | None) -> Job | None:
    """The scheduler's view: a live or pending job of this run if there is one, else the run's last job."""
    own = jobs_of(run_dir, jobs or [])
    live = live_jobs_of(run_dir, own)
    return next(iter(live or [job for job in own if job_id in (job.job_id, job.number)]), None)


def _state(
    run_dir: RunDir, status: Status, job_id: str | None, job: Job | None, jobs: list[Job] | None
) -> tuple[ShownState, str]:
    """The contract's rules, the first that fits."""
    stored: ShownState = status.state
    if stored in ("finished", "failed", "cancelled"):
        return stored, ""
    if job is not None and job.is_pending:
        return ("submitted" if status.segment == 0 else "waiting"), f"pending ({explained(job.reason)})"
    if job is not None and job.is_alive:
        return stored, f"suspended; `scontrol resume {job.job_id}` lets it go on" if job.state == "SUSPENDED" else ""
    if not is_slurms(job_id):
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
    # One that somebody has cancelled while it waited has nothing to be mended.
    death = None if job is not None and job.is_cancelled else death_before_beginning(run_dir, job_id)
    return "waiting", _NO_JOB if death is None else f"{death}; mend that and submit again"


def is_slurms(job_id: str | None) -> bool:
    """Whether a job is Slurm's; None is that of a run which a person has started by hand."""
    return job_id is not None and not job_id.startswith("local-")


def _without_slurm(run_dir: RunDir, status: Status, jobs: list[Job] | None) -> tuple[ShownState, str]:
    if status.state == "submitted" and jobs is not None and heartbeat_age_s(status) > LOST_AFTER_S:
        # A submitter that died on its way has left no job.
        return ("waiting", _NO_JOB) if local_controller(run_dir) is None else (status.state, "")
    if status.state != "running":
        return status.state, ""
    _, life = process_of(run_dir)
    if life is Life.GONE or (life is Life.UNKNOWN and heartbeat_age_s(status) > LOST_AFTER_S):
        return "lost", "its process has ended without a word; start it again"
    return status.state, ""
