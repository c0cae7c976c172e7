"""Hands a run over to Slurm, or to this machine, exactly once: what stood there comes back if it is refused."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from submitit.core.utils import FailedJobError, FailedSubmissionError

from job.config.settings import OF_AN_END
from job.config.sources import Configuration
from job.rundir.cancel import remove_mark
from job.rundir.directory import RunDir
from job.rundir.status import Status, now, read_status, write_status
from job.segment.plan import Plan
from slurm.login.batch_script import Order, submit_to_slurm
from slurm.login.clusters import Queues, clusters_of
from slurm.login.holder import Life, live_jobs_of, local_controller, process_of
from slurm.login.local import start_locally
from slurm.login.states import heartbeat_age_s
from slurm.login.submitter import only_submitter
from slurm.scheduler.errors import NoAnswerError, SchedulerError
from slurm.scheduler.queue import Job

QUEUE_TIMEOUT_S = 15.0
FRESH_S = 30.0
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
    if not local:
        require_sbatch()
    with only_submitter(run_dir.path):
        queues, clusters = Queues(QUEUE_TIMEOUT_S), {*clusters_of(run_dir), configuration.allocation.cluster}
        found = holder_of(run_dir, [] if local else jobs_on(queues, *clusters))
        if found is not None:
            return found
        job_id = _submit(plan, configuration, local=local)
        return Submission(job_id if local else f"job {job_id}", job_id, is_new=True)


def require_sbatch() -> None:
    """Raise NoAnswerError where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise NoAnswerError(
            "there is no sbatch on this machine: type this on a login node of the cluster, or add --local to train here"
        )


def jobs_on(queues: Queues, *clusters: str | None) -> list[Job]:
    """All jobs on some clusters; raises NoAnswerError if one of these does not answer."""
    jobs = queues.of(*clusters)
    if jobs is None:
        raise NoAnswerError(f"squeue gave no answer within {QUEUE_TIMEOUT_S:.0f} s; nothing was submitted, try again")
    return jobs


def holder_of(run_dir: RunDir, jobs: list[Job]) -> Submission | None:
    """The job, of those that there are, or the process that has the run; None if nobody.

    Not the one that AAE_ON_END tells of right now, when that is what calls this: it only waits for that to end.
    """
    is_over = _is_told_of(run_dir)
    for job in live_jobs_of(run_dir, jobs):
        if is_over and job.number == os.environ.get("SLURM_JOB_ID"):
            continue
        return Submission(f"job {job.job_id} ({job.state})", job.job_id, is_new=False)
    status = read_status(run_dir)
    if status is not None and status.state == "running" and heartbeat_age_s(status) < FRESH_S:
        owner, life = process_of(run_dir)
        if owner is not None and life is not Life.GONE:
            return Submission(str(owner), owner.job_id, is_new=False)
    local = None if is_over else _live_local_start(run_dir)
    return Submission(local, local, is_new=False) if local is not None else None


def _is_told_of(run_dir: RunDir) -> bool:
    """Whether AAE_ON_END has called this process for an end of this very run."""
    if not os.environ.keys() >= set(OF_AN_END):
        return False
    return os.path.realpath(os.environ[OF_AN_END[0]]) == os.path.realpath(run_dir.path)


def _live_local_start(run_dir: RunDir) -> str | None:
    """submitit's local controller of this run, once it is clear that it will not end of itself."""
    deadline = time.monotonic() + ENDING_S
    while (controller := local_controller(run_dir)) is not None and time.monotonic() < deadline:
        owner, life = process_of(run_dir)
        if owner is None or life is not Life.GONE:
            break
        time.sleep(0.1)  # it outlives its process by a second, or starts the next
    return f"local-{controller}" if controller is not None else None


def _submit(plan: Plan, configuration: Configuration, *, local: bool) -> str:
    run_dir, allocation = plan.run_dir, configuration.allocation
    handover = Handover(plan, None if local else allocation.cluster)
    try:
        if local:
            time_limit = configuration.sources["slurm_time"] != "default"
            job_id = "local-" + start_locally(run_dir, allocation, time_limit=time_limit)
        else:
            job_id = submit_to_slurm(Order.of_run(run_dir, allocation), allocation)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        found = (
            None if local else submitted_after_all(error, allocation.cluster, lambda jobs: live_jobs_of(run_dir, jobs))
        )
        if found is None:
            refusal = SchedulerError(str(error))
            if not refusal.may_have_submitted:
                handover.put_back()
            raise refusal from error
        job_id = found.job_id
    remove_mark(run_dir)
    return job_id


class Handover:
    """Writes what a run's next job finds: its settings, if they change, and that it is submitted. Can be taken back."""

    def __init__(self, plan: Plan, cluster: str | None) -> None:
        run_dir = self._run_dir = plan.run_dir
        files = (run_dir.settings_file, run_dir.status_file)
        self._kept = {path: path.read_bytes() for path in files if path.exists()}
        if plan.is_changed:
            plan.record.write(run_dir)
        total_steps = plan.settings.total_steps
        submitted = Status.after(read_status(run_dir), "submitted", total_steps, updated_at=now(), cluster=cluster)
        write_status(run_dir, submitted)
        run_dir.slurm.mkdir(exist_ok=True)
        self._there = set(run_dir.slurm.iterdir())

    def put_back(self) -> None:
        """Leave the run directory as it was before; of one that this has made only the submitter's mark stays."""
        run_dir = self._run_dir
        if not self._kept:
            shutil.rmtree(run_dir.slurm, ignore_errors=True)
            for path in (run_dir.settings_file, run_dir.status_file):
                path.unlink(missing_ok=True)
            return
        for path in set(run_dir.slurm.iterdir()) - self._there:
            path.unlink(missing_ok=True)
        for path, content in self._kept.items():
            run_dir.replace(path, content)


def submitted_after_all(error: Exception, cluster: str | None, own: Callable[[list[Job]], list[Job]]) -> Job | None:
    """The job if sbatch has submitted it and only its answer was lost or cannot be read; None if it has refused.

    `own` picks it from all jobs. Raises NoAnswerError where that cannot be told.
    """
    words = str(error).strip()
    jobs = Queues(QUEUE_TIMEOUT_S).of(cluster)
    found = own(jobs or [])
    if found:
        return found[0]
    if jobs is None or isinstance(error, FailedSubmissionError):
        raise NoAnswerError(
            f"{words}\nnobody can say whether the job was submitted, so everything is kept; type the same command again: "
            "it finds the job if there is one"
        ) from error
    return None
