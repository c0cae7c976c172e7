"""`aae-slurm cancel`: leaves a mark, then ends the jobs or the process, and reports."""

import contextlib
import os
import signal
import time

from job.commandline import Parser, add_run
from job.rundir.cancel import CancelMark
from job.rundir.directory import RunDir
from job.rundir.status import now, read_status, write_status
from slurm.login.clusters import Queues
from slurm.login.holder import Life, live_jobs_of, process_of
from slurm.login.local import local_controller
from slurm.login.states import LOST_AFTER_S, heartbeat_age_s
from slurm.login.unbegun import newest_job_id
from slurm.scheduler.end import end_jobs
from slurm.scheduler.queue import Job

WAIT_S = 60.0
QUEUE_TIMEOUT_S = 15.0


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm cancel",
        "Stops a run: it saves and ends, and is not started again by itself. Only what is surely this run's is ended.\n"
        "Exit code 0: it has ended, or there was nothing to cancel; 1: it has not, or nobody can say so; 2: no such run.",
        "aae-slurm cancel RUN",
    )
    add_run(parser)
    return cancel_run(parser.parse_args(arguments).run)


def cancel_run(run_dir: RunDir) -> int:
    """Cancel a run; returns the exit code: 0 it has ended, 1 it has not, or that cannot be said."""
    name = run_dir.path.name
    jobs = _live_jobs(run_dir)
    status = read_status(run_dir)
    controller = local_controller(run_dir)
    over = status is None or status.state in ("finished", "cancelled")
    if over and not jobs and controller is None:
        if jobs is None:
            print(f"{name}: squeue gives no answer, so nobody can say whether a job of it waits; try again")
            return 1
        print(f"{name} is {status.state if status else 'not started'} already: nothing to cancel")
        return 0
    owner, life = process_of(run_dir)
    ids = [job.job_id for job in jobs or []]
    if not ids:
        ids = [f"local-{controller}"] if controller is not None else [owner.job_id] if owner and owner.job_id else []
    CancelMark(
        job_id=next(iter(ids), None),
        others=ids[1:],
        host=owner.host if owner else None,
        pid=owner.pid if owner else None,
        time=now(),
    ).leave(run_dir)
    refusal = None
    if jobs:
        refusal = end_jobs(jobs)
    elif owner is not None and life is Life.ALIVE:
        _ask_to_end(owner.pid)
    elif controller is not None:
        _ask_to_end(controller)  # it hands it on to the process, which has not claimed the run yet
    why = _wait_for_end(run_dir, controller)
    if refusal is not None:
        print(f"{name}: scancel failed: {refusal}")
    if why is not None:
        print(f"{name}: the mark is left, at which a running process ends by itself, but {why}")
        return 1
    print(f"{name}: {_settle(run_dir)}; it stays resumable: submit it again to go on")
    return 0 if refusal is None else 1


def _live_jobs(run_dir: RunDir) -> list[Job] | None:
    """The run's jobs that run or wait; None if there may be some and the scheduler does not answer."""
    jobs = Queues(QUEUE_TIMEOUT_S).of_run(run_dir)
    if jobs is not None:
        return live_jobs_of(run_dir, jobs)
    owner, _ = process_of(run_dir)
    never_submitted = newest_job_id(run_dir) is None
    return [] if never_submitted and (owner is None or (owner.job_id or "local-").startswith("local-")) else None


def _ask_to_end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


def _wait_for_end(run_dir: RunDir, controller: int | None) -> str | None:
    """Wait until nothing of the run is left; returns why that cannot be said after a minute."""
    deadline = time.monotonic() + WAIT_S
    while True:
        jobs = _live_jobs(run_dir)
        if jobs is None:
            why = "squeue gives no answer, so nobody can say whether its job has ended"
        elif jobs:
            why = f"job {', '.join(job.job_id for job in jobs)} has not ended within {WAIT_S:.0f} s"
        elif (controller is not None and local_controller(run_dir) == controller) or _trains(run_dir):
            why = f"its process has not ended within {WAIT_S:.0f} s"
        else:
            return None
        if time.monotonic() > deadline:
            return why
        time.sleep(0.5)


def _trains(run_dir: RunDir) -> bool:
    """Whether a process may still write the run; one that cannot be seen from here shows it by its heartbeat."""
    status = read_status(run_dir)
    if status is None or status.state != "running":
        return False
    _, life = process_of(run_dir)
    return life is Life.ALIVE or (life is Life.UNKNOWN and heartbeat_age_s(status) <= LOST_AFTER_S)


def _settle(run_dir: RunDir) -> str:
    """Write that the run is cancelled if no process was there to do so; returns where it stands."""
    status = read_status(run_dir)
    if status is None:
        return "cancelled before its start"
    if status.state not in ("finished", "failed", "cancelled"):
        num_lost = status.step - (status.checkpoint_step or 0)
        lost = f", of which the last {num_lost:,} were not saved and will be done again" if num_lost else ""
        of = f" of {status.total_steps:,}" if status.total_steps else ""
        changes = {
            "state": "cancelled",
            "reason": "cancel",
            "verdict": f"cancelled at step {status.step:,}{of}{lost}; submit the run again to go on",
            "exit_code": 75,
            "eta_s": None,
            "updated_at": now(),
        }
        status = status.model_copy(update=changes)
        write_status(run_dir, status)
        return f"cancelled at step {status.step:,}{lost}"
    return f"{status.state} at step {status.step:,}"
