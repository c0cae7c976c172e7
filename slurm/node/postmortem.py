"""Puts on record how a segment ended that could not do so itself, by what the run directory tells of it."""

from collections.abc import Callable

from job.config.settings_file import recorded_allocation
from job.errors import TakenOverError
from job.log.writer import EventLog
from job.rundir.claim import Claim, claim_run, newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.outbox import Outbox
from job.rundir.patience import at_start
from job.rundir.status import Status, now, read_status, write_status
from job.segment.crash import Crash, settle
from slurm.node.start import Start


def task_lives(run_dir: RunDir, start: Start) -> bool:
    """Whether this start's own process holds the run and lives: then srun alone has died."""
    newest = read_segment(run_dir, newest_claim(run_dir))
    if newest is None or newest.cause is not None or not newest.owner.is_same_start(start.owner):
        return False
    return newest.owner.lives(Owner.this_process())


def put_on_record(run_dir: RunDir, start: Start, crash_of: Callable[[Status], Crash]) -> Status | None:
    """Settle the crash of this start if it has not ended in order; returns the status written, None if there is none to write.

    Raises AaeError or OSError.
    """
    before = at_start(lambda: read_status(run_dir), run_dir)
    if before is None or before.state in ("finished", "failed", "cancelled"):
        return None
    claim = at_start(lambda: _claim_of_the_dead(run_dir, start), run_dir)
    if claim is None:
        return None
    at_start(claim.shut_out_earlier, run_dir)
    run_dir.fence = claim.check
    saved_step = next(iter(at_start(lambda: run_dir.checkpoint_steps(before.checkpoint_step), run_dir)), 0)
    status = before.model_copy(update={"segment": claim.number, "job_id": start.job_id, "checkpoint_step": saved_step})
    outbox = at_start(lambda: Outbox(run_dir), run_dir)
    log = at_start(lambda: EventLog(run_dir, claim.number, outbox), run_dir)
    allocation = at_start(lambda: recorded_allocation(run_dir), run_dir)
    allowance = allocation.max_stalls if allocation is not None else None
    crash = at_start(lambda: crash_of(before), run_dir)
    changes = settle(run_dir, claim, log, crash, saved_step, allowance)
    at_start(outbox.flush, run_dir)
    status = status.model_copy(update={**changes, "updated_at": now()})
    at_start(lambda: write_status(run_dir, status), run_dir)
    return status


def _claim_of_the_dead(run_dir: RunDir, start: Start) -> Claim | None:
    """The claim of this start if nothing has ended it yet; one made for it if it died before it could make its own."""
    newest = newest_claim(run_dir)
    for number in range(newest, 0, -1):
        segment = read_segment(run_dir, number)
        if segment is not None and segment.owner.is_same_start(start.owner):
            # One that is not the newest was taken over: the run goes on elsewhere.
            over = number < newest or segment.cause is not None
            return None if over or segment.owner.lives(Owner.this_process()) else Claim(run_dir, number, segment)
    try:
        return claim_run(run_dir, start.owner)
    except TakenOverError:
        return None
