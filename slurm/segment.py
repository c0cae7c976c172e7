"""One start of a run in an allocation: trains, saves at a step border, finds out why it has to leave, requeues, leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

from job.cancel import read_mark
from job.claim import Owner
from job.errors import EXIT_FINISHED, EXIT_INTERRUPTED, EXIT_RESUMABLE, AaeError
from job.eventlog import read_lines
from job.events import StopReason
from job.record import Plan, plan_recorded
from job.run import Run
from job.rundir import RunDir
from slurm.queue import batch_script, show_job
from slurm.signals import AllocationStop

LOCAL_STARTS = 6  # how often submitit's local executor starts a task, fixed in its code
REQUEUE_ATTEMPTS = 5
REQUEUE_WAIT_S = 5.0


@dataclass(frozen=True)
class Start:
    """Who started this segment: the scheduler's job and how often it has restarted it; `local` is submitit's own executor."""

    job_id: str
    restart_count: int
    local: bool

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Start | None":
        """As the environment tells; None outside a job."""
        if "SUBMITIT_LOCAL_JOB_ID" in environment and environment.get("SUBMITIT_EXECUTOR") == "local":
            return cls(f"local-{environment['SUBMITIT_LOCAL_JOB_ID']}", 0, local=True)
        if "SLURM_JOB_ID" in environment:
            return cls(environment["SLURM_JOB_ID"], int(environment.get("SLURM_RESTART_COUNT") or 0), local=False)
        return None


@dataclass(frozen=True)
class Leave:
    """How a segment leaves: why, and whether it has the job started again or Slurm does so by itself."""

    reason: StopReason
    why: str
    requeue: bool
    slurm_restarts: bool = False


def run_submitted(path: str, environment: Mapping[str, str]) -> int:
    """Run a segment as submitit starts it, from settings.json alone; returns the exit code and tells errors on stderr."""
    stop = AllocationStop()
    run_dir = RunDir(Path(path))
    try:
        start = Start.of(environment)
        assert start is not None, "submitit starts this in a job"
        return run_segment(run_dir, plan_recorded(run_dir), stop, start)
    except AaeError as error:
        print(f"aae-slurm: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def run_segment(run_dir: RunDir, plan: Plan, stop: AllocationStop, start: Start) -> int:
    """Train until the run is finished or has to leave; returns the exit code. Raises AaeError as `Run` does."""
    if plan.is_finished:
        _say(f"finished already: {run_dir.path}")
        return EXIT_FINISHED
    mark = read_mark(run_dir)
    if mark is not None and mark.job_id == start.job_id:
        _say(f"job {start.job_id} was cancelled by aae-slurm cancel: leaving; submit the run again to go on")
        return EXIT_RESUMABLE
    owner = Owner.this_process(start.job_id, start.restart_count)
    end = None if start.local else _end_of_allocation(start.job_id, os.environ)
    with Run(run_dir, plan, owner=owner, tell=_say) as run:
        run.load()

        def time_is_up() -> bool:
            # What a save has cost so far, several times over, and a step or two.
            return end is not None and time.time() > end - max(10.0, 5 + 3 * run.trainer.save_s)

        stop.time_is_up = time_is_up
        while True:
            reason = run.train(stop)
            if reason is None:
                run.finish()
                _say(f"finished: {run.settings.total_steps:,} steps; {run_dir.final}")
                return EXIT_FINISHED
            if stop.signal is not None:
                run.log.write("signal", step=run.trainer.step, signal=stop.signal.name)
            leave = _decide(reason, stop, start)
            if leave is not None:
                return _leave(run, stop, start, leave)
            if stop.signal is not None:
                stop.train_on()


def _decide(reason: StopReason, stop: AllocationStop, start: Start) -> Leave | None:
    """Whether and how to leave; everything is saved. None: train on."""
    if reason == "cancel":
        return Leave("cancel", "cancelled by aae-slurm cancel", requeue=False)
    if start.local:
        return Leave(reason, _named(stop, reason), requeue=reason == "time_limit")
    if reason == "time_limit" and stop.signal is None:
        return Leave(reason, "the allocation ends in seconds and no signal came", requeue=True)
    if stop.signal in (signal.SIGUSR2, signal.SIGTERM):
        return _meaning_of_signal(stop.signal, show_job(start.job_id), start)
    if stop.signal is None:
        return None  # one of the saves after a SIGTERM that was no end
    return Leave(reason, _named(stop, reason), requeue=False)


def _meaning_of_signal(number: signal.Signals, job: dict[str, str] | None, start: Start) -> Leave | None:
    """Slurm sends the same signal for several ends; its own view of the job tells which. None: no end as far as is known."""
    by_user_signal = number == signal.SIGUSR2
    preempted = job is not None and job.get("PreemptTime", "None") not in ("None", "")
    state = job.get("JobState", "") if job is not None else ""
    if job is not None and state not in ("RUNNING", ""):
        if job.get("Reason") == "TimeLimit" or state == "TIMEOUT":
            return Leave("time_limit", "the time limit is over", requeue=True)
        if int(job.get("Restarts") or 0) > start.restart_count:
            # Preemption without a grace time ends the job at once; SIGUSR2 along with that is preempt_send_user_signal.
            reason: StopReason = "preemption" if preempted or by_user_signal else "requeue"
            return Leave(reason, "Slurm starts the job again by itself", requeue=False, slurm_restarts=True)
        return Leave("cancel", "cancelled by scancel", requeue=False)
    if preempted:
        return Leave("preemption", "preempted, in its grace time", requeue=True)
    return Leave("time_limit", "the time limit is near", requeue=True) if by_user_signal else None


def _named(stop: AllocationStop, reason: StopReason) -> str:
    return f"stopped by {stop.signal.name}" if stop.signal else reason


def _leave(run: Run, stop: AllocationStop, start: Start, leave: Leave) -> int:
    exit_code = EXIT_INTERRUPTED if leave.reason == "interrupt" and not start.local else EXIT_RESUMABLE
    stop.ignore_from_now_on()
    saved = f"{leave.why}; saved at step {run.trainer.step:,} of {run.settings.total_steps:,}, nothing is lost"
    will_restart = leave.requeue and not (start.local and _num_starts(run.run_dir, start.job_id) >= LOCAL_STARTS)
    if will_restart:
        _end(run, leave, f"{saved}; the job starts again", exit_code)
        refusal = None if start.local else _requeue(start.job_id)
        if refusal is None:
            return LOCAL_REQUEUE_RETURN_CODE if start.local else exit_code
        saved = f"{saved}; Slurm did not requeue the job: {refusal}"
    elif leave.requeue:
        saved = f"{saved}; this was the last of the {LOCAL_STARTS} starts of submitit's local executor"
    _end(run, leave, saved if leave.slurm_restarts else f"{saved}; submit the run again to go on", exit_code)
    return exit_code


def _end(run: Run, leave: Leave, verdict: str, exit_code: int) -> None:
    run.leave(leave.reason, verdict, exit_code)
    _say(verdict)


def _num_starts(run_dir: RunDir, job_id: str) -> int:
    starts = (line for line in read_lines(run_dir.events_file) if b'"event":"started"' in line or b'"resumed"' in line)
    return sum(orjson.loads(line)["job_id"] == job_id for line in starts)


def _requeue(job_id: str) -> str | None:
    """Ask Slurm to start this job again; returns why it does not, after several attempts. It ends this process soon."""
    refusal = ""
    for attempt in range(REQUEUE_ATTEMPTS):
        if attempt:
            time.sleep(REQUEUE_WAIT_S)
        try:
            done = subprocess.run(  # noqa: S603
                ["scontrol", "requeue", job_id],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            refusal = str(error)
            continue
        if done.returncode == 0:
            return None
        refusal = (done.stderr or done.stdout).strip()
    return refusal


def _end_of_allocation(job_id: str, environment: Mapping[str, str]) -> float | None:
    """When the allocation ends, in seconds since the epoch; None if there is no limit or no answer."""
    if environment.get("SLURM_JOB_END_TIME", "").isdigit():
        return float(environment["SLURM_JOB_END_TIME"])
    end = (show_job(job_id) or {}).get("EndTime", "")
    try:
        return datetime.strptime(end, "%Y-%m-%dT%H:%M:%S").astimezone().timestamp()
    except ValueError:
        return None


def warning_without_signal(start: Start) -> str | None:
    """What to tell a batch script that asks Slurm for no signal before the time limit; None if it does, or is not known."""
    script = batch_script(start.job_id)
    if script is None or "--signal" in script:
        return None
    return (
        "the batch script asks for no signal before the time limit: add `#SBATCH --signal=USR2@120` (with srun; "
        "`B:USR2@120` without); until then the job stops by its own clock, seconds before the end"
    )


def _say(line: str) -> None:
    print(line, flush=True)
