"""`aae-slurm cancel`: leaves a mark, then ends the jobs or the process, and reports."""

import contextlib
import os
import signal
import time

from job.commandline import Parser
from job.rundir.cancel import CancelMark
from job.rundir.directory import RunDir
from job.rundir.find import find_runs
from job.rundir.status import now, read_status, write_status
from slurm.login.clusters import Queues
from slurm.login.holder import Life, live_jobs_of, local_controller, process_of
from slurm.login.states import LOST_AFTER_S, heartbeat_age_s
from slurm.login.unbegun import newest_job_id
from slurm.scheduler.end import end_jobs
from slurm.scheduler.queue import Job

WAIT_S = 60.0
QUEUE_TIMEOUT_S = 15.0
_RESUMABLE = "it stays resumable: submit it again to go on"


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm cancel",
        "Stops a run, or all of a sweep: it saves and ends, and is not started again by itself. Only what is surely this run's\n"
        "is ended.\n"
        "Exit code 0: it has ended, or there was nothing to cancel; 1: it has not, or nobody can say so; 2: no such run.",
        "aae-slurm cancel RUN",
    )
    parser.add_argument(
        "run", type=find_runs, metavar="RUN", help="a run's path, its name under AAE_RUNS_DIR, or a sweep's"
    )
    return cancel_runs(parser.parse_args(arguments).run.runs)


def cancel_runs(run_dirs: list[RunDir]) -> int:
    """Cancel runs, all at once; returns the exit code: 0 they have ended, 1 one has not, or that cannot be said."""
    queues = Queues(QUEUE_TIMEOUT_S)
    cancels = [_Cancel(run_dir, _live_jobs(run_dir, queues)) for run_dir in run_dirs]
    told = [cancel for cancel in cancels if cancel.is_to_end()]
    refusal = end_jobs([job for cancel in told for job in cancel.jobs or []])
    for cancel in told:
        cancel.ask_process_to_end()
    deadline, waiting = time.monotonic() + WAIT_S, told
    while True:
        queues = Queues(QUEUE_TIMEOUT_S)
        waiting = [cancel for cancel in waiting if cancel.why_not_ended(queues) is not None]
        if not waiting or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if refusal is not None:
        print(f"scancel failed: {refusal}")
    for cancel in told:
        cancel.report(cancel.why_not_ended(queues) if cancel in waiting else None)
    return 1 if waiting or refusal is not None or any(cancel.is_unknown for cancel in cancels) else 0


class _Cancel:
    """The end of one run: of its `jobs`, None if the scheduler does not say which there are, or of its process."""

    def __init__(self, run_dir: RunDir, jobs: list[Job] | None) -> None:
        self.jobs = jobs
        self.is_unknown = False
        self._run_dir = run_dir
        self._controller = local_controller(run_dir)
        self._owner, self._life = process_of(run_dir)

    def is_to_end(self) -> bool:
        """Leave the mark if there is something to cancel; else say so."""
        status, name = read_status(self._run_dir), self._run_dir.path.name
        if (status is None or status.state in ("finished", "cancelled")) and not self.jobs and self._controller is None:
            self.is_unknown = self.jobs is None
            if self.is_unknown:
                print(f"{name}: squeue gives no answer, so nobody can say whether a job of it waits; try again")
            else:
                print(f"{name} is {status.state if status else 'not started'} already: nothing to cancel")
            return False
        owner, ids = self._owner, [job.job_id for job in self.jobs or []]
        if not ids:
            local = [f"local-{self._controller}"] if self._controller is not None else []
            ids = local or ([owner.job_id] if owner and owner.job_id else [])
        CancelMark(
            job_id=next(iter(ids), None),
            others=ids[1:],
            host=owner.host if owner else None,
            pid=owner.pid if owner else None,
            time=now(),
        ).leave(self._run_dir)
        return True

    def ask_process_to_end(self) -> None:
        """What no scheduler ends is asked itself."""
        if self.jobs:
            return
        if self._owner is not None and self._life is Life.ALIVE:
            _ask_to_end(self._owner.pid)
        elif self._controller is not None:
            _ask_to_end(self._controller)  # it hands it on to the process, which has not claimed the run yet

    def why_not_ended(self, queues: Queues) -> str | None:
        """Why it cannot be said that nothing of the run is left; None if it can."""
        jobs = _live_jobs(self._run_dir, queues)
        if jobs is None:
            return "squeue gives no answer, so nobody can say whether its job has ended"
        if jobs:
            return f"job {', '.join(job.job_id for job in jobs)} has not ended within {WAIT_S:.0f} s"
        controller = self._controller
        if (controller is not None and local_controller(self._run_dir) == controller) or _trains(self._run_dir):
            return f"its process has not ended within {WAIT_S:.0f} s"
        return None

    def report(self, why_not: str | None) -> None:
        """Say how it went."""
        name = self._run_dir.path.name
        if why_not is not None:
            print(f"{name}: the mark is left, at which a running process ends by itself, but {why_not}")
        else:
            print(f"{name}: {_settle(self._run_dir)}")


def _live_jobs(run_dir: RunDir, queues: Queues) -> list[Job] | None:
    """The run's jobs that run or wait; None if there may be some and the scheduler does not answer."""
    jobs = queues.of_run(run_dir)
    if jobs is not None:
        return live_jobs_of(run_dir, jobs)
    owner, _ = process_of(run_dir)
    never_submitted = newest_job_id(run_dir) is None
    return [] if never_submitted and (owner is None or (owner.job_id or "local-").startswith("local-")) else None


def _ask_to_end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


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
        return f"cancelled before its start; {_RESUMABLE}"
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
        return f"cancelled at step {status.step:,}{lost}; {_RESUMABLE}"
    told = status.verdict if status.state == "failed" else _RESUMABLE
    return f"{status.state} at step {status.step:,}; {told}"
