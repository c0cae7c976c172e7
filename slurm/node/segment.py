"""One start of a run in an allocation: trains, saves at a step border, finds out why it has to leave, requeues, leaves."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping

from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

from job.config.settings_file import allocation_of
from job.errors import (
    EXIT_FINISHED,
    EXIT_INTERRUPTED,
    EXIT_RESUMABLE,
    AaeError,
    GraphError,
    HopelessError,
    StorageError,
    TakenOverError,
)
from job.rundir.cancel import read_mark
from job.rundir.claim import newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.patience import at_start, until_there
from job.rundir.status import read_status
from job.segment.anew import start_anew
from job.segment.crash import crash_of
from job.segment.on_end import recorded_command, tell_of_end
from job.segment.plan import Plan, plan_recorded
from job.segment.run import Run
from slurm.node.leave import Leave, decide
from slurm.node.limit import Limit
from slurm.node.postmortem import put_on_record
from slurm.node.restart import plan_restart, restart_unseen
from slurm.node.signals import AllocationStop
from slurm.node.start import Start

LOCAL_STARTS = 6  # how often submitit's local executor starts a task, fixed in its code
LAST_CALL_S = 20.0  # before the end of the allocation: a step that hangs then has to be given up, and the job requeued
_SUBMIT = "submit the run again to go on"


def run_submitted(find: Callable[[], RunDir], environment: Mapping[str, str]) -> int:
    """Run a segment as submitit starts it, from settings.json alone; returns the exit code and tells errors on stderr.

    `find` tells the run directory; it may raise what `at_start` does.
    """
    with AllocationStop() as stop:
        start = Start.of(environment)
        assert start is not None, "submitit starts this in a job"
        found: list[RunDir] = []

        def plan() -> Plan:
            found.append(find())
            return _plan_submitted(found[-1])

        try:
            return run_segment(plan, stop, start)
        except AaeError as error:
            print(f"aae-slurm: {error}", file=sys.stderr, flush=True)
            if found and not isinstance(error, TakenOverError):
                _put_refusal_on_record(found[-1], start, error)
            return error.exit_code


def _put_refusal_on_record(run_dir: RunDir, start: Start, error: AaeError) -> None:
    """An error before the run was claimed: without a verdict it would be taken for a crash and started again."""
    with contextlib.suppress(AaeError, OSError):
        status = put_on_record(run_dir, start, lambda status: crash_of(error, run_dir, status.step, None))
        if status is not None:
            tell_of_end(run_dir, status, recorded_command(run_dir), _say)


def _plan_submitted(run_dir: RunDir) -> Plan:
    until_there(run_dir, _say)
    return at_start(lambda: plan_recorded(run_dir), run_dir, _say)


def run_segment(plan_of: Callable[[], Plan], stop: AllocationStop, start: Start) -> int:
    """Train until the run is finished or has to leave; returns the exit code. Raises AaeError as `Run` does.

    Where the disk gives no answer for a minute the job is started again, on another node if there is one.
    """
    try:
        return _run_segment(plan_of, stop, start)
    except (StorageError, OSError) as error:
        if start.local:
            raise
        stop.ignore_from_now_on()
        _say(f"aae-slurm: {error}")
        refusal = restart_unseen(start)
        if refusal is not None:
            _say(f"the job is not started again: {refusal}; {_SUBMIT}")
        return StorageError.exit_code


def _run_segment(plan_of: Callable[[], Plan], stop: AllocationStop, start: Start) -> int:
    plan = plan_of()
    run_dir = plan.run_dir
    if plan.is_finished:
        _say(f"finished already: {run_dir.path}")
        return EXIT_FINISHED
    mark, before, num_starts = at_start(
        lambda: (read_mark(run_dir), read_status(run_dir), _num_segments(run_dir, start.owner) + 1), run_dir, _say
    )
    if mark is not None and mark.names(start.owner):
        _say(f"job {start.job_id} was cancelled by aae-slurm cancel: leaving; submit the run again to go on")
        return EXIT_RESUMABLE
    if before is not None and before.state == "failed" and start.is_of(before.job_id):
        _say(f"job {start.job_id} has failed: {before.verdict}; submit the run again to try again")
        return before.exit_code or 1
    may_restart = not start.local or num_starts < LOCAL_STARTS
    allowance = allocation_of(plan.record, run_dir).max_stalls if may_restart else None
    run = Run(
        plan, owner=start.owner, allowance=allowance, tell=_say, after_hang=lambda: _restart(run, start, run.exit_code)
    )
    try:
        with run:
            return _train(run, stop, start, may_restart=may_restart)
    except GraphError as error:
        start_anew(stop, error)
    except AaeError as error:
        if not run.restarts and not (run.restarts is False and isinstance(error, StorageError)):
            raise
        stop.ignore_from_now_on()
        _say(f"aae-slurm: {error}")
        return _restart(run, start, run.exit_code) if run.restarts else run.exit_code
    except Exception:
        traceback.print_exc()
        stop.ignore_from_now_on()
        return _restart(run, start, run.exit_code) if run.restarts else run.exit_code


def _train(run: Run, stop: AllocationStop, start: Start, *, may_restart: bool) -> int:
    limit = None if start.local else Limit(start.job_id, os.environ)
    if limit is not None and limit.end is not None:
        run.tell_limit(limit.end)
    run.load()
    if (
        start.mem_mb is not None
        and run.previous is not None
        and (run.previous.owner.mem_mb or start.mem_mb) < start.mem_mb
    ):
        run.warn(
            "more_memory", f"the job has {start.mem_mb:,} MiB of memory now instead of {run.previous.owner.mem_mb:,}"
        )

    def time_is_up() -> bool:
        if limit is None:
            return False
        # What a save has cost so far, several times over, and a step or two.
        margin_s = max(10.0, 5 + 3 * run.trainer.saver.save_s)
        is_near = limit.is_near(margin_s, look_anew=stop.was_continued())
        run.limit_at = limit.end
        run.watchdog.ends_at = limit.end - LAST_CALL_S if limit.end is not None else None
        return is_near

    stop.time_is_up = time_is_up
    while True:
        reason = run.train(stop)
        if reason is None:
            run.finish()
            _say(f"finished: {run.trainer.step:,} steps; {run.run_dir.final}")
            return EXIT_FINISHED
        if stop.signal is not None:
            run.log.write("signal", step=run.trainer.step, signal=stop.signal.name)
        leave = decide(reason, stop, start)
        if leave is not None:
            stop.ignore_from_now_on()
            return _leave(run, start, leave, may_restart=may_restart)
        if stop.signal is not None:
            stop.train_on()


def _leave(run: Run, start: Start, leave: Leave, *, may_restart: bool) -> int:
    exit_code = EXIT_INTERRUPTED if leave.reason == "interrupt" and not start.local else EXIT_RESUMABLE
    saved = f"{leave.why}; saved at step {run.trainer.step:,} of {run.settings.total_steps:,}, nothing is lost"
    if leave.requeue and leave.reason == "time_limit":
        used_up = run.used_up("time_limit")
        if used_up is not None:
            raise HopelessError("no_progress", f"{saved}; {used_up}, with a longer AAE_SLURM_TIME if that is too short")
    if leave.requeue and may_restart:
        verdict = f"{saved}; the job starts again"
    elif leave.slurm_restarts:
        verdict = saved
    elif leave.requeue:
        verdict = f"{saved}; this was the last of the {LOCAL_STARTS} starts of submitit's local executor; {_SUBMIT}"
    else:
        verdict = f"{saved}; {_SUBMIT}"
    run.leave(leave.reason, verdict, exit_code)
    _say(verdict)
    return _restart(run, start, exit_code) if leave.requeue and may_restart else exit_code


def _restart(run: Run, start: Start, exit_code: int) -> int:
    """Have the job started again; returns the exit code, and says so if it is not."""
    if start.local:
        return LOCAL_REQUEUE_RETURN_CODE
    restart, status = at_start(lambda: (plan_restart(run.run_dir, start), read_status(run.run_dir)), run.run_dir, _say)
    verdict = "; ".join(filter(None, [status.verdict if status is not None else None, restart.words]))
    if status is not None and status.reason == "no_gpu" and not restart.elsewhere:
        run.amend(state="failed", verdict=verdict)
        _say(verdict)
        run.tell_of_end()
        return exit_code
    if restart.words or restart.is_changed:
        run.amend(avoided_nodes=restart.avoided, verdict=verdict)
        _say(restart.words)
    refusal = restart.ask(start.job_id)
    if refusal is not None:
        run.amend(verdict=f"Slurm did not requeue the job: {refusal}; {_SUBMIT}")
        _say(f"Slurm did not requeue the job: {refusal}; {_SUBMIT}")
        run.tell_of_end(stays=True)
    return exit_code


def _num_segments(run_dir: RunDir, owner: Owner) -> int:
    """How many segments in a row, up to the newest, are of this owner's job; what a process that began anew left is none."""
    number, found = newest_claim(run_dir), 0
    while (segment := read_segment(run_dir, number)) is not None and segment.owner.is_of_job(owner):
        found += segment.cause != "no_graph"
        number -= 1
    return found


def warning_without_signal(script: str | None) -> str | None:
    """What to tell a batch script that asks Slurm for no signal before the time limit; None if it does, or is not known."""
    if script is None or "--signal" in script:
        return None
    return (
        "the batch script asks for no signal before the time limit: add `#SBATCH --signal=USR2@120` (with srun; "
        "`B:USR2@120` without); until then the job stops by its own clock, seconds before the end"
    )


def _say(line: str) -> None:
    print(line, flush=True)
