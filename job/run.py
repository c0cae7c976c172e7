"""One segment of a run, from the claim to an orderly end: the only place where the parts are put together."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from job.cancel import remove_mark
from job.claim import Owner, claim_run
from job.errors import EXIT_FINISHED, AaeError, HopelessError, TakenOverError, UsageError
from job.eventlog import EventLog, read_lines
from job.events import StopReason
from job.machine import allotted_cpus, choose_device, device_name, versions
from job.outbox import Outbox
from job.record import Plan
from job.resume import Past, changed_settings, inexactness, look_back
from job.rundir import RunDir
from job.status import Heartbeat, State, Status, read_status

if TYPE_CHECKING:
    import torch

    from job.trainer import Stop, Trainer


class Run:
    """A claimed run as a context manager; `load`, then `train` as often as needed, then `finish` or `leave`.

    Entering raises TakenOverError if another process writes the run. An exception that leaves the block is recorded as
    the run's verdict, except TakenOverError: then another process owns the directory.
    """

    def __init__(
        self, run_dir: RunDir, plan: Plan, *, owner: Owner | None = None, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.run_dir = run_dir
        self.settings = plan.settings
        self.trainer: Trainer
        self.log: EventLog
        self._plan = plan
        self._owner = owner or Owner.this_process()
        self._tell = tell
        self._outbox: Outbox

    def __enter__(self) -> Self:
        try:
            self._claim = claim_run(self.run_dir, self._owner, self._tell)
            self._before = read_status(self.run_dir)
            self.run_dir.fence = self._claim.check
            self._heartbeat = Heartbeat(self.run_dir, self._first_status())
            self._heartbeat.start()
            self.run_dir.clear_temporaries()
            remove_mark(self.run_dir)
            self._write_record()
            self._outbox = Outbox(self.run_dir)
        except OSError as error:
            raise UsageError(
                f"{self.run_dir.path} cannot be written: {error}; make it writable or set AAE_RUNS_DIR to a folder that is"
            ) from error
        self.log = EventLog(self.run_dir, self._claim.segment, self._outbox)
        return self

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
            segment=self._claim.segment,
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
        from job.data import Batches, load_training_images
        from job.trainer import Trainer

        settings = self.settings
        torch.set_num_threads(settings.num_threads or 1)
        _set_determinism(settings.deterministic)
        device = choose_device(settings.device)
        batches = Batches(load_training_images(settings), settings.batch_size, settings.seed, device)
        self.trainer = Trainer(settings, batches, device, self.run_dir, self._outbox, self.log)
        known_step = self._before.checkpoint_step if self._before else None
        state, bad = checkpoint.load_newest(self.run_dir, known_step)
        past = look_back(self.run_dir, self._before, state)
        if state is not None:
            self._write_carried(state["pending"])
            self.trainer.restore(state)
        self._heartbeat.progress = self.trainer.progress
        self._write_start(device, state, past)
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
            if self._heartbeat.status.checkpoint_step != self.trainer.saved_step:
                with contextlib.suppress(OSError):
                    self._heartbeat.write()
            reason = stop()
            if (reason or self._heartbeat.cancelled) and self.run_dir.cancel_mark.exists():
                return "cancel"
            return reason

        return self.trainer.train(ask)

    def finish(self) -> None:
        """Write `final/`, `finished` and the verdict."""
        from job.final import write_final

        write_final(self.run_dir, self.trainer, self._claim.segment)
        self.log.write("finished", step=self.trainer.step, elapsed_s=round(self.trainer.elapsed_s, 3))
        self._end("finished", "finished", f"finished all {self.trainer.step} steps", EXIT_FINISHED)

    def leave(self, reason: StopReason, verdict: str, exit_code: int) -> None:
        """Write `stopped` and leave the run waiting, or cancelled; everything has been saved by `train`."""
        self.log.write("stopped", step=self.trainer.step, reason=reason)
        self._end("cancelled" if reason == "cancel" else "waiting", reason, verdict, exit_code)

    def warn(self, reason: str, message: str) -> None:
        """Tell the user and the log of something that training goes on in spite of."""
        self._tell(f"warning: {message}")
        self.log.write("warning", step=self.trainer.step, reason=reason, message=message)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, TakenOverError):
            self._heartbeat.end()
            return
        # The disk may be what has failed: what can still be written is, and the error itself is told in any case.
        with contextlib.suppress(OSError, TakenOverError):
            if error is not None:
                self._fail(error)
            self._outbox.drain()
            self._outbox.sync()
        self._heartbeat.end()
        with contextlib.suppress(OSError, TakenOverError):
            self._claim.release()
        self._outbox.close()

    def _fail(self, error: BaseException) -> None:
        exit_code = error.exit_code if isinstance(error, AaeError) else 1
        reason = "refused" if isinstance(error, UsageError) else "exception"
        if isinstance(error, HopelessError):
            reason = error.reason
        text = str(error) if isinstance(error, AaeError) else f"{type(error).__name__}: {error}"
        step = self._heartbeat.progress().get("step", self._heartbeat.status.step)
        self.log.write("failed", step=step, reason=reason, error=text, exit_code=exit_code)
        self._end("failed", reason, text, exit_code)

    def _end(self, state: State, reason: str, verdict: str, exit_code: int) -> None:
        self._heartbeat.write(state=state, reason=reason, verdict=verdict, exit_code=exit_code, eta_s=None)
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
        if self._claim.segment == 1:
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


def _set_determinism(deterministic: bool) -> None:
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(deterministic)
    # Filling fresh memory guards against reading it before writing, which no kernel used here does; it costs a pass.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch types it wrongly
