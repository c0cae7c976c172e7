"""`aae-slurm check --on-node`: sends a job of a few minutes that looks around, waits for it, and tells what it has found."""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from job.commandline import duration
from job.config.allocation import Allocation
from job.config.settings import Settings
from job.machine import source_digest, versions
from job.output import rest
from job.rundir.directory import RunDir
from job.rundir.small_file import exists
from slurm.findings import CheckDir, Findings, Line, Request
from slurm.login.batch_script import Order, submit_to_slurm
from slurm.login.paces import likeness
from slurm.login.submit_once import QUEUE_TIMEOUT_S, require_sbatch
from slurm.login.submitter import only_submitter
from slurm.scheduler.errors import NoAnswerError, SchedulerError
from slurm.scheduler.queue import Job, list_jobs
from slurm.scheduler.reasons import explained

TIME = "00:20:00"  # enough for a CPU that takes a second a step
_SIGNAL_DELAY_S = 15
_FILES_S, _QUEUE_S = 2.0, 30.0  # how often findings are looked for, and the scheduler asked
_SEEN_AFTER_S = 60.0  # a shared filesystem may show what a node has written only after a while


def look_from_node(
    settings: Settings, allocation: Allocation, tell: Callable[[str], None]
) -> tuple[Findings | None, list[Line]]:
    """Submit the job, or find the one that a call before has submitted, and wait for it; returns what it found, and its lines.

    A job that ends without a word is a line itself. Raises SchedulerError or NoAnswerError, and KeyboardInterrupt by Ctrl-C, which
    leaves the job in the queue.
    """
    require_sbatch()
    values = settings.model_dump(mode="json", exclude={"runs_dir", "run_name"})
    check_dir = CheckDir.of(settings.runs_dir, values, allocation.model_dump(mode="json"), source_digest())
    with only_submitter(check_dir.path):
        findings = check_dir.findings()
        job = _job_of(check_dir, allocation)
        if job is None and (findings is None or exists(check_dir.told_mark)):
            job_id = _submit(check_dir, settings, allocation)
            tell(f"sent job {job_id}, which looks around on a node; Ctrl-C leaves it in the queue")
        elif job is not None:
            tell(f"job {job.job_id} of an earlier call is {job.state.lower()}")
    tell("the same command finds the job, or what it has found")
    findings = _wait(check_dir, allocation, tell)
    if findings is None:
        return None, [_ended_without_a_word(check_dir)]
    check_dir.told_mark.touch()
    return findings, findings.as_lines()


def _job_of(check_dir: CheckDir, allocation: Allocation) -> Job | None:
    """The job of this question that waits or runs; raises NoAnswerError."""
    jobs = list_jobs(QUEUE_TIMEOUT_S, cluster=allocation.cluster)
    if jobs is None:
        raise NoAnswerError(f"squeue gave no answer within {QUEUE_TIMEOUT_S:.0f} s; nothing was submitted, try again")
    folder = os.path.realpath(check_dir.slurm)
    live = (job for job in jobs if job.is_pending or job.is_alive)
    return next((job for job in live if os.path.realpath(Path(job.command).parent) == folder), None)


def _submit(check_dir: CheckDir, settings: Settings, allocation: Allocation) -> str:
    nonce = secrets.token_hex(8)
    request = Request(
        settings=settings.model_dump(mode="json"),
        slurm=allocation.model_dump(mode="json"),
        like=likeness(settings, allocation),
        nonce=nonce,
        versions=versions(),
        source_digest=source_digest(),
    )
    check_dir.slurm.mkdir(parents=True, exist_ok=True)
    for path in (check_dir.findings_file, check_dir.told_mark):
        path.unlink(missing_ok=True)
    RunDir(check_dir.path).replace(check_dir.request_file, request.model_dump_json(indent=1).encode())
    short = allocation.model_copy(update={"time": TIME, "signal_delay_s": _SIGNAL_DELAY_S})
    if allocation.time_min < short.time_min:
        short = short.model_copy(update={"time": allocation.time})
    try:
        return submit_to_slurm(Order.of_check(check_dir, nonce), short)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise SchedulerError(str(error)) from error


def _wait(check_dir: CheckDir, allocation: Allocation, tell: Callable[[str], None]) -> Findings | None:
    """The findings once they are there; None if the job has ended without any."""
    told, asked, gone_since = "", -_QUEUE_S, None
    while (findings := check_dir.findings()) is None:
        if time.monotonic() - asked >= _QUEUE_S:
            asked = time.monotonic()
            words, is_gone = _standing(check_dir, allocation)
            gone_since = (gone_since or time.monotonic()) if is_gone else None
            if words != told:
                tell(words)
                told = words
        if gone_since is not None and time.monotonic() - gone_since > _SEEN_AFTER_S:
            return None
        rest(_FILES_S)
    return findings


def _standing(check_dir: CheckDir, allocation: Allocation) -> tuple[str, bool]:
    """Where the job is, in words, and whether it has ended."""
    try:
        job = _job_of(check_dir, allocation)
    except NoAnswerError:
        return "the scheduler gives no answer; still waiting", False
    if job is None:
        return (
            f"the job has ended; waiting up to {duration(_SEEN_AFTER_S)} for what it has written to be seen here",
            True,
        )
    if job.is_pending:
        return f"job {job.job_id} is pending: {explained(job.reason)}", False
    return f"job {job.job_id} is {job.state.lower()}: a few minutes", False


def _ended_without_a_word(check_dir: CheckDir) -> Line:
    printed = max(check_dir.slurm.glob("*_log.out"), key=lambda path: path.stat().st_mtime, default=None)
    if printed is None:
        text = (
            f"the job has ended, and nothing that it printed is seen in {check_dir.slurm}: nodes do not see these files"
        )
        return Line("on_node", "error", text, "AAE_RUNS_DIR=... on a filesystem that the nodes share")
    lines = [line.strip() for line in printed.read_text(errors="replace").splitlines() if line.strip()][-3:]
    return Line("on_node", "error", f"the job has ended without findings; {printed} ends with: {' | '.join(lines)}")
