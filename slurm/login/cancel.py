"""`aae-slurm cancel`: leaves a mark, then ends the job or the process, and reports."""

import os
import signal
import subprocess
import time

from job.commandline import Parser, add_run
from job.rundir.cancel import CancelMark
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import now, read_status, write_status
from slurm.login.local import local_controller
from slurm.login.states import Shown, show
from slurm.scheduler.queue import list_jobs

WAIT_S = 60.0


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm cancel",
        "Stops a run: it saves and ends, and is not started again by itself.",
        "aae-slurm cancel RUN",
    )
    add_run(parser)
    return cancel_run(parser.parse_args(arguments).run)


def cancel_run(run_dir: RunDir) -> int:
    """Cancel a run; returns the exit code: 0 cancelled, 1 it has not ended within a minute."""
    shown = show(run_dir, list_jobs())
    if shown is None or shown.status.state in ("finished", "cancelled"):
        print(f"{run_dir.path.name} is {shown.status.state if shown else 'not started'} already: nothing to cancel")
        return 0
    status = shown.status
    controller = local_controller(run_dir)
    job_id = f"local-{controller}" if controller is not None else shown.job_id
    CancelMark(job_id=job_id, host=status.host, pid=status.pid, time=now()).leave(run_dir)
    _end(run_dir, shown, controller)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        current = read_status(run_dir)
        if current is None or current.state in ("finished", "cancelled", "failed"):
            break
        if not _may_live(run_dir, shown.job_id, controller):
            break
    else:
        print(f"{run_dir.path.name}: the mark is left and the signal sent, but it has not ended within {WAIT_S:.0f} s")
        return 1
    current = read_status(run_dir)
    if current is not None and current.state not in ("finished", "failed", "cancelled"):
        # No process was there to write it.
        verdict = f"cancelled at step {current.step:,} of {current.total_steps:,}; submit the run again to go on"
        cancelled = current.model_copy(
            update={
                "state": "cancelled",
                "reason": "cancel",
                "verdict": verdict,
                "exit_code": 75,
                "eta_s": None,
                "updated_at": now(),
            }
        )
        write_status(run_dir, cancelled)
        current = cancelled
    if current is not None:
        print(
            f"{run_dir.path.name}: {current.state} at step {current.step:,}; it stays resumable: submit it again to go on"
        )
    return 0


def _end(run_dir: RunDir, shown: Shown, controller: int | None) -> None:
    if shown.job_id is not None and not shown.job_id.startswith("local-"):
        subprocess.run(["scancel", shown.job_id], check=False, timeout=30)  # noqa: S603, S607
    elif _process_lives(run_dir) and shown.status.pid is not None:
        os.kill(shown.status.pid, signal.SIGTERM)
    elif controller is not None:
        os.kill(controller, signal.SIGTERM)  # it hands it on to the process, which has not claimed the run yet


def _may_live(run_dir: RunDir, job_id: str | None, controller: int | None) -> bool:
    """Whether anything of the run is left that may still write, as far as can be told."""
    if _process_lives(run_dir):
        return True
    if job_id is not None and not job_id.startswith("local-"):
        jobs = list_jobs()
        return jobs is None or any(job.bears(job_id) and (job.is_alive or job.is_pending) for job in jobs)
    return controller is not None and local_controller(run_dir) == controller


def _process_lives(run_dir: RunDir) -> bool:
    """Whether the run's process is on this host and alive."""
    status = read_status(run_dir)
    segment = read_segment(run_dir, status.segment) if status is not None else None
    me = Owner.this_process()
    return segment is not None and segment.owner.host == me.host and not segment.is_over(me)
