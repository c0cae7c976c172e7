"""One segment of a run, from the claim to an orderly end: the only place where the parts are put together."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from job.cancel import read_mark, remove_mark
from job.claim import Cause, Owner, claim_run, read_segment
from job.crash import crash_of, settle, used_up
from job.errors import EXIT_FINISHED, TakenOverError, UsageError
from job.eventlog import EventLog
from job.events import StopReason
from job.history import read_lines
from job.machine import allotted_cpus, choose_device, device_name, versions
from job.outbox import Outbox
from job.patience import patiently
from job.record import Plan
from job.resume import Past, changed_settings, inexactness, look_back
from job.rundir import FULL, RunDir
from job.status import Heartbeat, State, Status, read_status

if TYPE_CHECKING:
    import torch

    from job.trainer import Stop, Trainer


class Run:
    """A claimed run as a context manager; `load`, then `train` as often as needed, then `finish` or `leave`.

    Entering raises TakenOverError if another process writes the run, UsageError if its directory cannot be written. An
    exception that leaves the block is put on record, except TakenOverError: then another process owns the directory.
    `allowance` is how many segments in a row may come to nothing before the run is no more started again by itself, None
    where nothing does; `restarts` tells after an exception that it is to be started again, `exit_code` what to exit with.
    """

    def __init__(
        self,
        run_dir: RunDir,
        plan: Plan,
        *,
        owner: Owner | None = None,
        allowance: int | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.run_dir = run_dir
        self.settings = plan.settings
        self.restarts = False
        self.exit_code = 1
        self.trainer: Trainer
        self.log: EventLog
        self._plan = plan
        self._owner = owner or Owner.this_process()
        self._allowance = allowance
        self._tell = tell
        self._outbox: Outbox
        self._close_trainer: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        mark = read_mark(self.run_dir)
        patiently(self._claim_run, self.run_dir, "nothing was written")
        self.run_dir.fence = self._claim.check
        self._before = read_status(self.run_dir)
        self._previous = read_segment(self.run_dir, self._claim.number - 1)
        self._heartbeat = Heartbeat(self.run_dir, self._first_status())
        try:
            self._heartbeat.start()
            self.run_dir.clear_temporaries()
            # A mark that was left since then, or that names this very job, is for this start.
            if mark is not None and mark == read_mark(self.run_dir) and not mark.names(self._owner.job_id):
                remove_mark(self.run_dir)
            self._write_record()
            self._outbox = Outbox(self.run_dir)
            self.log = EventLog(self.run_dir, self._claim.number, self._outbox)
        except OSError as error:
            self._heartbeat.end()
            raise self._not_writable(error) from error
        return self

    def _claim_run(self) -> None:
        try:
            self._claim = claim_run(self.run_dir, self._owner, self._tell)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self.run_dir.path} cannot be written: {error}; make it writable or set AAE_RUNS_DIR to a folder that is"
        )

    def _write_record(self) -> None:
        if self.settings.num_threads is None:
            self.settings = self.settings.model_copy(update={"num_threads": allotted_cpus()})
        if self._plan.is_changed or self.settings != self._plan.settings:
            values = self.settings.model_dump(mode="json")
            self._plan.record.model_copy(update={"settings": values}).write(self.run_dir)

    def _first_status(self) -> Status:
        before = self._before
        return Status(
            state="running",
            step=before.step if before else 0,
            checkpoint_step=before.checkpoint_step if before else None,
            total_steps=self.settings.total_steps,
            segment=self._claim.number,
            job_id=self._owner.job_id,
            host=self._owner.host,
            pid=self._owner.pid,
        )

    def load(self) -> None:
        """Load torch, the data and the newest good checkpoint, and write `started` or `resumed`.

        Raises HopelessError if there is no GPU where one was given, or no checkpoint can be read where there was one.
        """
        import torch

        from job import checkpoint
        from job.data import Batches, held_out_sample, load_images
        from job.monitor import NUM_IMAGES
        from job.precision import set_determinism, use_precision
        from job.trainer import Trainer

        settings = self.settings
        torch.set_num_threads(settings.num_threads or 1)
        set_determinism(settings.deterministic)
        device = choose_device(settings.device)
        slow = use_precision(settings.precision, device)
        self._heartbeat.status = self._heartbeat.status.model_copy(update={"device": device_name(device)})
        batches = Batches(load_images(settings, train=True).pixels, settings.batch_size, settings.seed, device)
        held_out = held_out_sample(load_images(settings, train=False), NUM_IMAGES)
        self.trainer = Trainer(settings, batches, held_out, device, self.run_dir, self._outbox, self.log)
        self._close_trainer = self.trainer.close
        known_step = max(
            (self._before.checkpoint_step if self._before else None) or 0,
            (self._previous.from_step if self._previous else None) or 0,
        )
        state, bad = checkpoint.load_newest(self.run_dir, known_step, self._tell)
        past = look_back(self.run_dir, self._before, self._claim.number - 1, self._owner, state)
        if state is not None:
            self._write_carried(state["pending"])
            self.trainer.restore(state)
        self._heartbeat.progress = self.trainer.progress
        with contextlib.suppress(OSError):  # without it the segment counts as one that has come to nothing
            self._claim.note(from_step=self.trainer.step, began_at=time.time())
        self._write_start(device, state, past)
        if slow is not None:
            self.warn("slow_precision", slow)
        for error in bad:
            self.warn("bad_checkpoint", str(error))
        self.run_dir.remove_folder(self.run_dir.final)

    def train(self, stop: "Stop") -> StopReason | None:
        """Train until the total (None) or until `stop` answers a reason; everything is then saved. May be called again.

        A cancel mark in the run directory is a reason too, found at the next heartbeat, and goes before any other.
        """

        def ask() -> StopReason | None:
            if self._heartbeat.error is not None:
                raise self._heartbeat.error
            if self._heartbeat.status.checkpoint_step != self.trainer.saver.saved_step:
                with contextlib.suppress(OSError):
                    self._heartbeat.write()
            reason = stop()
            if (reason or self._heartbeat.cancelled) and self.run_dir.cancel_mark.exists():
                return "cancel"
            return reason

        return self.trainer.train(ask)

    def finish(self) -> None:
        """Write `final/`, `finished` and the verdict; raises HopelessError if the disk does not take them."""
        from job.final import final_curves, write_final

        step, total_steps = self.trainer.step, self.settings.total_steps
        left = f"all {step} steps are done and saved"
        curves = final_curves(self.run_dir, self.warn)
        if curves is not None:
            self._outbox.put(self.run_dir.relative(self.run_dir.curves), curves)
        patiently(lambda: write_final(self.run_dir, self.trainer, self._claim.number, curves), self.run_dir, left)
        self.log.write("finished", step=step, elapsed_s=round(self.trainer.elapsed_s, 3))
        words = self.trainer.monitor.detector.words
        if step < total_steps:
            self._end("finished", "saturated", f"ended at step {step} of {total_steps}, {words}", EXIT_FINISHED, left)
        else:
            self._end("finished", "finished", f"finished all {step} steps; {words}", EXIT_FINISHED, left)

    def leave(self, reason: StopReason, verdict: str, exit_code: int) -> None:
        """Write `stopped` and leave the run waiting, or cancelled; everything has been saved by `train`.

        Raises HopelessError if the disk does not take it.
        """
        self.log.write("stopped", step=self.trainer.step, reason=reason)
        left = f"everything up to step {self.trainer.step} is saved"
        self._end("cancelled" if reason == "cancel" else "waiting", reason, verdict, exit_code, left)

    def say(self, verdict: str) -> None:
        """Change the verdict after the end."""
        with contextlib.suppress(OSError):
            self._heartbeat.write(verdict=verdict)

    def used_up(self, cause: Cause) -> str | None:
        """Why the allowance for automatic restarts is used up if the segment ends now like this; None if it is not."""
        if self._allowance is None:
            return None
        last = self._claim.segment.model_copy(update={"cause": cause})
        return used_up(self.run_dir, self._claim.number, last, self.trainer.saver.saved_step or 0, self._allowance)

    def warn(self, reason: str, message: str) -> None:
        """Tell the user and the log of something that training goes on in spite of."""
        self._tell(f"warning: {message}")
        self.log.write("warning", step=self.trainer.step, reason=reason, message=message)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close_trainer()
        if isinstance(error, TakenOverError):
            self._heartbeat.end()
            return
        # The disk may be what has failed: what can still be written is, and the error itself is told in any case.
        with contextlib.suppress(OSError, TakenOverError):
            if error is not None:
                self._fail(error)
        self._heartbeat.end()
        self._outbox.close()

    def _fail(self, error: BaseException) -> None:
        status = self._heartbeat.status.model_copy(update=self._heartbeat.progress())
        crash = crash_of(error, self.run_dir, status.step, status.device)
        told = settle(self.run_dir, self._claim, self.log, crash, status.checkpoint_step or 0, self._allowance)
        self.restarts, self.exit_code = told["state"] == "waiting", told["exit_code"]
        if crash.traceback is not None:
            self._tell(told["verdict"])  # what is raised says neither what to do nor what happens next
        self._heartbeat.write(**told)

    def _end(self, state: State, cause: Cause, verdict: str, exit_code: int, left: str) -> None:
        def write() -> None:
            with contextlib.suppress(OSError):  # there may be enough all the same
                self.trainer.saver.make_room(0)
            self._outbox.flush()
            self._heartbeat.write(state=state, reason=cause, verdict=verdict, exit_code=exit_code, eta_s=None)
            self._claim.note(cause=cause)

        patiently(write, self.run_dir, left)
        self._heartbeat.end()

    def _write_carried(self, pending: list[tuple[str | None, bytes]]) -> None:
        """Write what the last checkpoint had to carry, unless it reached the disk after all."""
        present = set(read_lines(self.run_dir.events_file)) if pending else set()
        for path, content in pending:
            if path is not None:
                self._outbox.put(path, content)
            elif content not in present:
                self._outbox.append(content)

    def _write_start(self, device: "torch.device", state: dict[str, Any] | None, past: Past) -> None:
        settings, step = self.settings, self.trainer.step
        where = f"on {device_name(device)}, {settings.num_threads} threads"
        start = {
            "total_steps": settings.total_steps,
            "device": device_name(device),
            "num_threads": settings.num_threads,
            "host": self._owner.host,
            "pid": self._owner.pid,
            "job_id": self._owner.job_id,
            "versions": versions(),
        }
        if self._claim.number == 1:
            self.log.write("started", step=0, **start)
            self._tell(f"starting {where}, {settings.total_steps:,} steps")
            return
        changed = changed_settings(state, settings) if state else {}
        self.log.write("resumed", step=step, **start, from_step=step, **asdict(past), changed=changed)
        lost = f"; {past.steps_lost:,} steps ({past.seconds_lost:.0f} s) are done again" if past.steps_lost else ""
        self._tell(
            f"resuming {where}, at step {step:,} of {settings.total_steps:,}; the last segment {past.previous}{lost}"
        )
        for reason, message in inexactness(state, settings, device.type) if state else []:
            self.warn(reason, message)
