"""What comes after a segment that could not end by itself: the batch script calls this when its task is over.

A process that was killed has told nobody. The run directory tells: if this job's start holds the newest claim and no end of
it is on record, it died, and the run is started again within its allowance. No exit code decides: steps rewrite them.
"""

import contextlib
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

from job.errors import AaeError, StorageError
from job.output import install, wait_for_no_reader
from job.rundir.cancel import read_mark
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir
from job.rundir.patience import at_start, until_there
from job.rundir.status import Status, now, read_status, write_status
from job.rundir.sweep import printed_by
from job.segment.crash import Crash, records_before, what_to_change
from job.segment.on_end import recorded_command, tell_of_end
from slurm.node.element import element_of
from slurm.node.postmortem import put_on_record, task_lives
from slurm.node.restart import plan_restart, restart_unseen
from slurm.node.start import Start
from slurm.scheduler.queue import GOES_ON, show_job
from slurm.scheduler.requeue import REQUEUE_FOR_S

# What srun and slurmstepd print when the kernel has ended a task that used more memory than the job was given.
_NO_MEMORY = ("Out Of Memory", "oom-kill event", "oom_kill event")
_BEGINNING = "Starting with JobEnvironment"  # what submitit prints first at each start


def main(arguments: list[str] | None = None) -> None:
    """Called with the run directory, or a sweep's and the number of its array there, and the exit code of srun."""
    install()
    wait_for_no_reader()
    *where, exit_code = sys.argv[1:] if arguments is None else arguments
    start = Start.of(os.environ)
    assert start is not None, "the batch script of a job calls this"
    # Without an answer nobody knows whether the job was cancelled, which a requeue would undo
    job = show_job(start.job_id, REQUEUE_FOR_S)
    if job is not None and job.get("JobState") not in GOES_ON:
        return  # Slurm is ending the job, and knows whether to start it again
    run_dir = None
    try:
        run_dir = RunDir(Path(*where)) if len(where) == 1 else element_of(where[0], int(where[1]), os.environ)
        until_there(run_dir)
        mark = at_start(lambda: read_mark(run_dir), run_dir)
        if mark is not None and mark.names(start.owner):
            return
        told = put_on_record(run_dir, start, lambda status: _killed(run_dir, start, status, int(exit_code)))
    except (StorageError, OSError) as error:
        print(f"aae-slurm: {error}", file=sys.stderr, flush=True)
        refusal = restart_unseen(start)
        if refusal is not None:
            print(f"aae-slurm: job {start.job_id} is not started again: {refusal}", file=sys.stderr, flush=True)
        return
    except AaeError as error:
        if run_dir is None or not task_lives(run_dir, start):
            print(f"aae-slurm: job {start.job_id} is not started again: {error}", file=sys.stderr, flush=True)
            return
        told = None  # it has claimed the run only now
    if told is not None:
        print(f"aae-slurm: {told.verdict}", flush=True)
    if task_lives(run_dir, start):
        # With this script Slurm ends the task too, which takes it for an operator's requeue, and saves.
        print("aae-slurm: srun was killed, not what it had started; that saves, and the job starts again", flush=True)
    elif told is None or told.state != "waiting":
        _tell_of_end(run_dir, start, told)
        return
    _start_again(run_dir, start, told)


def _start_again(run_dir: RunDir, start: Start, told: Status | None) -> None:
    restart = at_start(lambda: plan_restart(run_dir, start), run_dir)
    if told is not None and (restart.words or restart.is_changed):
        told = _amended(told, restart.words, avoided_nodes=restart.avoided)
        write_status(run_dir, told)
        print(f"aae-slurm: {restart.words}", flush=True)
    refusal = restart.ask(start.job_id)
    if refusal is not None:
        again = f"Slurm did not requeue the job: {refusal}; submit the run again to go on"
        print(f"aae-slurm: {again}", file=sys.stderr, flush=True)
        if told is not None:
            told = _amended(told, again)
            write_status(run_dir, told)
            tell_of_end(run_dir, told, recorded_command(run_dir), _say, stays=True)


def _tell_of_end(run_dir: RunDir, start: Start, told: Status | None) -> None:
    """Have AAE_ON_END tell of the end that was put on record, or of that which the task wrote and may not have lived to tell of."""
    with contextlib.suppress(AaeError, OSError):
        status = told or _written_by(run_dir, start)
        if status is not None:
            tell_of_end(run_dir, status, recorded_command(run_dir), _say, is_found=told is None)


def _written_by(run_dir: RunDir, start: Start) -> Status | None:
    """The status of a run, None where another job has written it."""
    status = read_status(run_dir)
    segment = read_segment(run_dir, status.segment) if status is not None else None
    return status if segment is not None and segment.owner.is_of_job(start.owner) else None


def _say(line: str) -> None:
    print(f"aae-slurm: {line}", flush=True)


def _amended(status: Status, words: str, **changes: Any) -> Status:
    verdict = "; ".join(filter(None, [status.verdict, words]))
    return status.model_copy(update={"verdict": verdict, "updated_at": now(), **changes})


def _killed(run_dir: RunDir, start: Start, status: Status, exit_code: int) -> Crash:
    printed = printed_by(run_dir, start.job_id)
    said = printed.read_text(errors="replace")[-65536:].rpartition(_BEGINNING)[2] if printed.exists() else ""
    killer = next((number.name for number in signal.Signals if number == exit_code - 128), None)
    ended = f"was killed by {killer}" if killer else f"ended with exit code {exit_code} and without a word"
    reason, error = "killed", f"the process {ended}; what it printed: {printed}"
    if any(words in said for words in _NO_MEMORY):
        reason = "out_of_memory"
        hint = what_to_change(status.device, status.peak_memory_bytes)
        error = f"the process was killed because the job used more memory than it was given; {hint}"
    records = records_before(run_dir)
    return Crash(
        reason=reason,
        error=error,
        exit_code=exit_code,
        step=max([status.step, *(record["step"] for record in records)]),
        host=platform.node(),
        device=status.device,
        peak_memory_bytes=status.peak_memory_bytes,
        traceback=None,
        last_records=records,
    )


if __name__ == "__main__":
    main()
