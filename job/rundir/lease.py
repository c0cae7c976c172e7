"""The right to write a run, held by this process: a claim, the fence before every write, and a heartbeat."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Self

from job.rundir.cancel import lift_mark, read_mark
from job.rundir.claim import Cause, Claim, claim_run, read_segment
from job.rundir.directory import FULL, RunDir
from job.rundir.heartbeat import Heartbeat
from job.rundir.liveness import Owner
from job.rundir.pace import waits_until
from job.rundir.patience import at_start
from job.rundir.small_file import exists
from job.rundir.status import State, Status, iso, read_status


class Lease:
    """Held from `take` to `end`; `release` tells how the segment ended, so that the next start need not wait.

    `before` is the status that was found and `previous` the segment before this one, None for none.
    """

    def __init__(self, run_dir: RunDir, claim: Claim, total_steps: int) -> None:
        self.claim = claim
        self.before = read_status(run_dir)
        self.previous = read_segment(run_dir, claim.number - 1)
        self._taken_s, owner = time.time(), claim.segment.owner
        known: dict[str, Any] = {"segment": claim.number, **({"steps_lost": 0} if claim.number == 1 else {})}
        known["started_at"] = iso(self._taken_s)
        known |= {"waits_s": waits_until(self._taken_s, owner, self.previous, self.before), **owner.told()}
        status = Status.after(self.before, "running", total_steps, **known)
        self.heartbeat = Heartbeat(run_dir, status)
        self._run_dir = run_dir

    @classmethod
    def take(
        cls, run_dir: RunDir, owner: Owner, total_steps: int, tell: Callable[[str], None], *, is_new: bool
    ) -> Self:
        """Become the run's writer, and set aside what was left for an earlier one.

        Raises TakenOverError if another process is, HopelessError if the disk stays full, StorageError if it stays away, and
        OSError at once if a run that `is_new` cannot be begun there.
        """
        mark = at_start(lambda: read_mark(run_dir), run_dir, tell)
        if is_new:
            run_dir.path.mkdir(parents=True, exist_ok=True)
        claim = at_start(lambda: claim_run(run_dir, owner, tell), run_dir, tell, only=FULL if is_new else None)
        at_start(claim.shut_out_earlier, run_dir, tell)
        run_dir.fence = claim.check
        lease = at_start(lambda: cls(run_dir, claim, total_steps), run_dir, tell)

        def tidy() -> None:
            lease.heartbeat.write()
            run_dir.clear_temporaries()
            lift_mark(run_dir, mark, owner)

        lease.heartbeat.start()
        try:
            at_start(tidy, run_dir, tell)
        except BaseException:
            lease.end()
            raise
        return lease

    def age_s(self) -> float:
        """Seconds since it was taken."""
        return round(time.time() - self._taken_s, 3)

    def check(self) -> None:
        """Raise what the heartbeat has met."""
        if self.heartbeat.error is not None:
            raise self.heartbeat.error

    def tell_of_checkpoint(self, saved_step: int | None) -> None:
        """Have status.json tell of the newest checkpoint at once, if the heartbeat has not yet."""
        if self.heartbeat.status.checkpoint_step != saved_step:
            with contextlib.suppress(OSError):
                self.heartbeat.write()

    def count_lost(self, num_steps: int) -> None:
        """Have status.json tell from now on of more steps that are done again; raises TakenOverError."""
        known = self.heartbeat.status.steps_lost
        if num_steps > 0 and known is not None:
            with contextlib.suppress(OSError):  # the next heartbeat writes it
                self.heartbeat.write(steps_lost=known + num_steps)

    def is_cancelled(self) -> bool:
        """Whether a cancel mark is there now; as the last heartbeat saw it where the disk does not say."""
        with contextlib.suppress(OSError):
            self.heartbeat.cancelled = exists(self._run_dir.cancel_mark)
        return self.heartbeat.cancelled

    def release(self, state: State, cause: Cause, verdict: str, exit_code: int) -> None:
        """Write down how the segment ends; raises OSError, and may be tried again."""
        self.heartbeat.write(state=state, reason=cause, verdict=verdict, exit_code=exit_code, eta_s=None)
        self.claim.note(cause=cause)

    def end(self) -> None:
        """Let the heartbeat end; what was written last stands."""
        self.heartbeat.end()
