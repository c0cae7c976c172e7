"""One segment of a run, from the claim to an orderly end: the only place where the parts are put together."""

import contextlib
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from job.data.datasets import check_dataset, check_files
from job.errors import EXIT_FINISHED, EXIT_RESUMABLE, GraphError, HangError, TakenOverError, UsageError
from job.loading import loading
from job.log.writer import EventLog
from job.machine import source_digest
from job.output import lost as lost_output
from job.rundir.claim import Cause, Segment, StopReason
from job.rundir.lease import Lease
from job.rundir.liveness import Owner
from job.rundir.outbox import Outbox
from job.rundir.pace import paces
from job.rundir.patience import at_start, patiently
from job.rundir.status import State, iso
from job.segment.anew import NO_GRAPH
from job.segment.crash import crash_of, settle
from job.segment.footprint import footprint, too_much
from job.segment.on_end import tell_of_end
from job.segment.opening import of_changes, of_disk, of_machine, write_start
from job.segment.plan import Plan
from job.segment.restarts import used_up
from job.segment.resume import known_step, look_back, write_carried
from job.segment.watchdog import Watchdog

T = TypeVar("T")

if TYPE_CHECKING:
    from job.training.trainer import Stop, Trainer


class Run:
    """A claimed run as a context manager; `load`, then `train` as often as needed, then `finish` or `leave`.

    Entering raises TakenOverError if another process writes the run, UsageError if a new one cannot be begun there,
    StorageError if the disk does not answer. An exception that leaves the block is put on record, except TakenOverError: then
    another process owns the directory.
    `allowance` is how many segments in a row may come to nothing before the run is no more started again by itself, None
    where nothing does; `restarts` tells after an exception whether it is to be started again, None if that could not even be put
    on record, `exit_code` what to exit with.
    `after_hang` is called where a step never ended, once that is on record, just before the process ends itself with its answer.
    `limit_at` is when the allocation ends, in seconds since the epoch, for status.json.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        owner: Owner | None = None,
        allowance: int | None = None,
        tell: Callable[[str], None] = lambda _: None,
        after_hang: Callable[[], int] = lambda: 1,
    ) -> None:
        self.run_dir = plan.run_dir
        self.settings = plan.settings.with_cpus()
        self.restarts: bool | None = None
        self.exit_code = 1
        self.limit_at: float | None = None
        self.trainer: Trainer
        self.log: EventLog
        self._plan = plan
        self._owner = owner or Owner.this_process()
        self._allowance = allowance
        self._tell = tell
        self._after_hang = after_hang
        self.watchdog = Watchdog(self.settings.step_limit_s, self._hangs, self.tell_of_end)
        self._lease: Lease
        self._outbox: Outbox
        self._still_told_s = 0.0
        self._silence_told = False
        self._close_trainer: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        if self._plan.is_new:  # before anything is written
            check_dataset(self.settings.dataset, self.settings.data_dir, every_byte=True)
        try:
            total_steps, is_new = self.settings.total_steps, self._plan.is_new
            self._lease = Lease.take(self.run_dir, self._owner, total_steps, self._tell, is_new=is_new)
            try:
                self._patiently(self._write_record)
                self._outbox = self._patiently(lambda: Outbox(self.run_dir))
                self.log = self._patiently(lambda: EventLog(self.run_dir, self._lease.claim.number, self._outbox))
            except BaseException:
                self._lease.end()
                raise
        except OSError as error:
            raise UsageError(
                f"{self.run_dir.path} cannot be written: {error}; make it writable or set AAE_RUNS_DIR to a folder that is"
            ) from error
        return self

    def _patiently(self, attempt: Callable[[], T]) -> T:
        return at_start(attempt, self.run_dir, self._tell)

    def _write_record(self) -> None:
        if self._plan.is_changed or self.settings != self._plan.settings:
            values = self.settings.model_dump(mode="json")
            self._plan.record.model_copy(update={"settings": values}).write(self.run_dir)

    def _progress(self) -> dict[str, Any]:
        told, clock = self.trainer.progress(), self.trainer.clock
        told |= paces(self._lease.before, clock.step_ms(told["step"]), clock.num_steps(told["step"]))
        return {**told, "limit_at": iso(self.limit_at) if self.limit_at is not None else None}

    def tell_limit(self, limit_at: float) -> None:
        """Have status.json tell from now on when the allocation ends, in seconds since the epoch; raises TakenOverError."""
        self.limit_at = limit_at
        self.amend(limit_at=iso(limit_at))

    def load(self) -> None:
        """Load torch, the data and the newest good checkpoint, and write `started` or `resumed`.

        Raises HopelessError if there is no GPU where one was given, or no checkpoint can be read where there was one.
        """
        with loading():
            # What the end needs is loaded now too: the installation may be replaced while this process trains.
            import job.training.final  # noqa: F401
            from job.checkpoints.checkpoint import load_newest
            from job.training.device import device_name, hardware, prepare_torch
            from job.training.trainer import Trainer

        lease, digest = self._lease, source_digest()  # of what this process begins with
        if lease.claim.number == 1 and not self._plan.is_new:
            self._patiently(lambda: check_files(self.settings.dataset, self.settings.data_dir, every_byte=True))
        no_graph = os.environ.get(NO_GRAPH)
        device, warnings = prepare_torch(self.settings, no_graph)
        lease.heartbeat.status = lease.heartbeat.status.model_copy(update={"device": device_name(device)})
        # Before there are networks: for a moment it takes twice its size.
        state, bad = load_newest(self.run_dir, known_step(lease), self._tell)
        self.trainer = self._patiently(
            lambda: Trainer(self.settings, device, self.run_dir, self._outbox, self.log, may_record=no_graph is None)
        )  # which reads the images first
        self._close_trainer = self.trainer.close
        past = self._patiently(lambda: look_back(self.run_dir, lease, state))
        lease.count_lost(past.steps_lost)
        if state is not None:
            write_carried(self.run_dir, self._outbox, state["pending"], self._tell)
            self.trainer.restore(state)
        lease.heartbeat.progress = self._progress
        self.watchdog.watch(self.trainer)
        with contextlib.suppress(OSError):  # without it the segment counts as one that has come to nothing
            lease.claim.note(from_step=self.trainer.step, began_at=time.time())
        lease.heartbeat.status = lease.heartbeat.status.model_copy(update={"start_up_s": lease.age_s()})
        write_start(self.log, self._tell, lease, self.settings, device_name(device), self.trainer.step, past, state)
        left = footprint(self.settings)
        self._tell(left.words)
        graph = self.trainer.records_graph
        changes = of_changes(
            lease, self._plan.record, self.settings, state, device.type, hardware(device), digest, cuda_graph=graph
        )
        for reason, message in (
            *of_disk(self.run_dir, lease, past, bad),
            *changes,
            *of_machine(self.settings),
            *warnings,
            *too_much(self.settings, left),
        ):
            self.warn(reason, message)
        self._patiently(lambda: self.run_dir.remove_folder(self.run_dir.final))

    @property
    def previous(self) -> Segment | None:
        """The segment before this one, None for none."""
        return self._lease.previous

    def train(self, stop: "Stop") -> StopReason | None:
        """Train until the total (None) or until `stop` answers a reason; everything is then saved. May be called again.

        A cancel mark in the run directory is a reason too, found at the next heartbeat, and goes before any other. Between the
        reason and the save nothing is looked at or written: what the disk refuses or keeps waiting would cost the steps.
        """

        def ask() -> StopReason | None:
            self._lease.check()
            reason = "cancel" if self._lease.heartbeat.cancelled else stop()
            if reason is None:
                self._lease.tell_of_checkpoint(self.trainer.saver.saved_step)
                self._tell_of_standing_still()
                self._tell_that_nobody_listens()
            return reason

        while (reason := self.trainer.train(ask)) is not None:
            if self._lease.is_cancelled():
                return "cancel"
            if reason != "cancel":
                return reason
        return None

    def _tell_that_nobody_listens(self) -> None:
        error = lost_output()
        if error is not None and not self._silence_told:
            self._silence_told = True
            self.warn("output_lost", f"what this process says is lost: {error.strerror}; training goes on")

    def _tell_of_standing_still(self) -> None:
        still_s = self.trainer.clock.still_s - self._still_told_s
        if still_s > 0:
            self._still_told_s += still_s
            self.warn(
                "suspended", f"the process stood still for {still_s:.0f} s, as when its job is suspended; not counted"
            )

    def finish(self) -> None:
        """Write `final/`, `finished` and the verdict; raises HopelessError if the disk does not take them."""
        from job.training.final import final_curves, write_final

        step, total_steps, clock = self.trainer.step, self.settings.total_steps, self.trainer.clock
        left = f"all {step} steps are done and saved"
        curves = final_curves(self.run_dir, self.warn)
        if curves is not None:
            self._outbox.put(self.run_dir.relative(self.run_dir.curves), curves)
        segments = self._lease.claim.number
        room = self.trainer.saver.with_room
        patiently(lambda: room(lambda: write_final(self.run_dir, self.trainer, segments, curves)), self.run_dir, left)
        with contextlib.suppress(OSError):  # they take room, no more
            self.trainer.saver.keep_newest()
        self.log.write("finished", step=step, elapsed_s=round(clock.elapsed_s, 3))
        words = self.trainer.monitor.detector.words
        if step < total_steps:
            self._end("finished", "saturated", f"ended at step {step} of {total_steps}, {words}", EXIT_FINISHED, left)
        else:
            self._end("finished", "finished", f"finished all {step} steps; {words}", EXIT_FINISHED, left)

    def leave(self, reason: StopReason, verdict: str, exit_code: int) -> None:
        """Write `stopped` and leave the run waiting, or cancelled; everything has been saved by `train`.

        Raises HopelessError if the disk does not take it.
        """
        self._tell_that_nobody_listens()
        self.log.write("stopped", step=self.trainer.step, reason=reason)
        left = f"everything up to step {self.trainer.step} is saved"
        self._end("cancelled" if reason == "cancel" else "waiting", reason, verdict, exit_code, left)

    def amend(self, **changes: Any) -> None:
        """Change keys of status.json, before training or after the end."""
        with contextlib.suppress(OSError):
            self._lease.heartbeat.write(**changes)

    def tell_of_end(self, *, stays: bool = False) -> None:
        """Run AAE_ON_END if the segment has ended the run, or left it to wait, where it `stays`, with nobody to start it again."""
        tell_of_end(self.run_dir, self._lease.heartbeat.status, self.settings.on_end, self._tell, stays=stays)

    def used_up(self, cause: Cause) -> str | None:
        """Why the allowance for automatic restarts is used up if the segment ends now like this; None if it is not."""
        if self._allowance is None:
            return None
        claim = self._lease.claim
        last = claim.segment.model_copy(update={"cause": cause})
        saved_step, allowance = self.trainer.saver.saved_step or 0, self._allowance
        return patiently(
            lambda: used_up(self.run_dir, claim.number, last, saved_step, allowance),
            self.run_dir,
            "everything is saved",
        )

    def warn(self, reason: str, message: str) -> None:
        """Tell the user and the log of something that training goes on in spite of."""
        self._tell(f"warning: {message}")
        self.log.write("warning", step=self.trainer.step, reason=reason, message=message)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.watchdog.end()
        self._close_trainer()
        if isinstance(error, TakenOverError):
            self._lease.end()
            return
        # The disk may be what has failed: what can still be written is, and the error itself is told in any case.
        with contextlib.suppress(OSError, TakenOverError):
            if isinstance(error, GraphError):
                self._outbox.flush()
                self._lease.release("waiting", "no_graph", f"{error}; starting anew without", EXIT_RESUMABLE)
            elif error is not None:
                self._fail(error)
        self._lease.end()
        self._outbox.close()
        self.tell_of_end()

    def _fail(self, error: BaseException) -> None:
        heartbeat = self._lease.heartbeat
        status = heartbeat.status.model_copy(update=heartbeat.progress())
        crash = crash_of(error, self.run_dir, status.step, status.device)
        told = settle(self.run_dir, self._lease.claim, self.log, crash, status.checkpoint_step or 0, self._allowance)
        self.restarts, self.exit_code = told["state"] == "waiting", told["exit_code"]
        if crash.traceback is not None:
            self._tell(told["verdict"])  # what is raised says neither what to do nor what happens next
        heartbeat.write(**told)

    def _hangs(self, told: str, where: str) -> int:
        """In a thread beside the loop, which hangs: put that on record; returns the exit code."""
        self._lease.heartbeat.end()
        with contextlib.suppress(OSError, TakenOverError):
            self._fail(HangError(told, where))
        return self._after_hang() if self.restarts else self.exit_code

    def _end(self, state: State, cause: Cause, verdict: str, exit_code: int, left: str) -> None:
        def write() -> None:
            self._outbox.flush()
            self._lease.release(state, cause, verdict, exit_code)

        patiently(lambda: self.trainer.saver.with_room(write), self.run_dir, left)
        self._lease.end()
