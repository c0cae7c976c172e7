"""Hands a run over to Slurm, or to this machine, exactly once: what stood there comes back if it is refused."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from job.config.sources import Configuration
from job.errors import UsageError
from job.rundir.cancel import remove_mark
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir, create_exclusively
from job.rundir.liveness import Owner, read_owner
from job.rundir.status import Status, now, read_status, write_status
from job.segment.plan import Plan
from slurm.login.batch_script import submit_to_slurm
from slurm.login.clusters import Queues, clusters_of
from slurm.login.holder import Life, live_jobs_of, process_of
from slurm.login.local import local_controller, start_locally
from slurm.login.states import heartbeat_age_s
from slurm.scheduler.errors import NoAnswerError, SchedulerError

QUEUE_TIMEOUT_S = 15.0
FRESH_S = 30.0
SUBMITTER_WAIT_S = 60.0
ENDING_S = 5.0


@dataclass(frozen=True)
class Submission:
    """Where a run is now: the job or process that has it, in words, and whether this call put it there.

    `job_id` is None where a process has it that no scheduler has started.
    """

    holder: str
    job_id: str | None
    is_new: bool


def submit_once(plan: Plan, configuration: Configuration, *, local: bool) -> Submission:
    """Submit a run unless it is queued or running; raises SchedulerError or NoAnswerError and puts back what stood there."""
    run_dir = plan.run_dir
    if not local and shutil.which("sbatch") is None:
        raise NoAnswerError(
            "there is no sbatch on this machine: type this on a login node of the cluster, or add --local to train here"
        )
    try:
        with _only_submitter(run_dir):
            clusters = {*clusters_of(run_dir), configuration.allocation.cluster} if not local else set()
            found = _holder(run_dir, clusters)
            if found is not None:
                return found
            job_id = _submit(plan, configuration, local=local)
            return Submission(job_id if local else f"job {job_id}", job_id, is_new=True)
    finally:
        with contextlib.suppress(OSError):
            run_dir.path.rmdir()  # only the mark of this call was in it; one that holds anything stays


def _holder(run_dir: RunDir, clusters: set[str | None]) -> Submission | None:
    """The job or process that has the run, None if nobody; asks the queues of these clusters."""
    if clusters:
        jobs = Queues(QUEUE_TIMEOUT_S).of(*clusters)
        if jobs is None:
            raise NoAnswerError(
                f"squeue gave no answer within {QUEUE_TIMEOUT_S:.0f} s; nothing was submitted, try again"
            )
        for job in live_jobs_of(run_dir, jobs):
            return Submission(f"job {job.job_id} ({job.state})", job.job_id, is_new=False)
    status = read_status(run_dir)
    if status is not None and status.state == "running" and heartbeat_age_s(status) < FRESH_S:
        owner, life = process_of(run_dir)
        if owner is not None and life is not Life.GONE:
            return Submission(str(owner), owner.job_id, is_new=False)
    local = _live_local_start(run_dir)
    return Submission(local, local, is_new=False) if local is not None else None


def _live_local_start(run_dir: RunDir) -> str | None:
    """submitit's local controller of this run, once it is clear that it will not end of itself."""
    deadline = time.monotonic() + ENDING_S
    while (controller := local_controller(run_dir)) is not None and time.monotonic() < deadline:
        status = read_status(run_dir)
        segment = read_segment(run_dir, status.segment) if status is not None else None
        if segment is None or segment.cause is None:
            break
        time.sleep(0.1)  # it outlives its process by a second, or starts the next
    return f"local-{controller}" if controller is not None else None


def _submit(plan: Plan, configuration: Configuration, *, local: bool) -> str:
    run_dir = plan.run_dir
    kept = {path: path.read_bytes() for path in (run_dir.settings_file, run_dir.status_file) if path.exists()}
    if plan.is_changed:
        plan.record.write(run_dir)
    cluster = None if local else configuration.allocation.cluster
    total_steps = plan.settings.total_steps
    submitted = Status.after(read_status(run_dir), "submitted", total_steps, updated_at=now(), cluster=cluster)
    write_status(run_dir, submitted)
    run_dir.slurm.mkdir(exist_ok=True)
    there = set(run_dir.slurm.iterdir())
    try:
        if local:
            time_limit = configuration.sources["slurm_time"] != "default"
            job_id = "local-" + start_locally(run_dir, configuration.allocation, time_limit=time_limit)
        else:
            job_id = submit_to_slurm(run_dir, configuration.allocation)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        found = None if local else _submitted_after_all(run_dir, configuration.allocation.cluster, error)
        if found is None:
            refusal = SchedulerError(str(error))
            if not refusal.may_have_submitted:
                _put_back(run_dir, kept, there)
            raise refusal from error
        job_id = found
    remove_mark(run_dir)
    return job_id


def _submitted_after_all(run_dir: RunDir, cluster: str | None, error: Exception) -> str | None:
    """The run's job if sbatch has submitted it and only its answer was lost or cannot be read; None if it has refused.

    Raises NoAnswerError where that cannot be told.
    """
    words = str(error).strip()
    jobs = Queues(QUEUE_TIMEOUT_S).of(cluster)
    live = live_jobs_of(run_dir, jobs or [])
    if live:
        return live[0].job_id
    if jobs is None or isinstance(error, FailedSubmissionError):
        raise NoAnswerError(
            f"{words}\nnobody can say whether the job was submitted, so everything is kept; type the same command again: "
            "it finds the job if there is one"
        ) from error
    return None


def _put_back(run_dir: RunDir, kept: dict[Path, bytes], there: set[Path]) -> None:
    """Leave the run directory as it was before this call; the whole of it goes if this call made it."""
    if not kept:
        shutil.rmtree(run_dir.path, ignore_errors=True)
        return
    for path in set(run_dir.slurm.iterdir()) - there:
        path.unlink(missing_ok=True)
    for path, content in kept.items():
        run_dir.replace(path, content)


@contextlib.contextmanager
def _only_submitter(run_dir: RunDir) -> Iterator[None]:
    """Keep a second shell from submitting the same run at the same time; a dead one's mark is taken away."""
    mark = run_dir.path / ".submitting"
    me = Owner.this_process()
    try:
        deadline = time.monotonic() + SUBMITTER_WAIT_S
        run_dir.path.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                create_exclusively(mark, me.model_dump_json().encode())
                break
            except FileExistsError:
                holder = read_owner(mark)
                if (holder is not None and holder.is_over(me)) or time.monotonic() > deadline:
                    mark.unlink(missing_ok=True)
                time.sleep(0.1)
    except OSError as error:
        raise UsageError(
            f"{run_dir.path} cannot be written: {error}; make it writable or set AAE_RUNS_DIR to a folder that is"
        ) from error
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
