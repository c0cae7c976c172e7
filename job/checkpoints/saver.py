"""Bringing a run's state to disk: in order, into the room there is, and with patience where the disk refuses."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from job.checkpoints.checkpoint import make_room, prune, save_checkpoint
from job.log.writer import EventLog
from job.rundir.directory import FULL, RunDir
from job.rundir.outbox import Outbox
from job.rundir.patience import patiently
from job.rundir.small_file import exists

T = TypeVar("T")

State = Callable[[], dict[str, Any]]


class Saver:
    """Saves checkpoints; what is due up to their step is on disk before they are, or carried in them.

    `saved_step` is that of the newest, None before the first; `save_s` what the last took.
    """

    def __init__(self, run_dir: RunDir, outbox: Outbox, log: EventLog, keep_checkpoints: int) -> None:
        self.saved_step: int | None = None
        self.save_s = 0.0
        self._run_dir = run_dir
        self._outbox = outbox
        self._log = log
        self._keep_checkpoints = keep_checkpoints
        self._fails = False  # whether the last attempt did

    def save(self, step: int, state: State) -> None:
        """Save a checkpoint of a step unless there is one; raises OSError if the disk refuses."""
        if step in (0, self.saved_step):
            return
        began = time.perf_counter()
        with contextlib.suppress(OSError):  # what waits is carried
            self.with_room(self._outbox.write)
        if not self._outbox.items:
            self._outbox.sync()
        if self._outbox.replaced:
            self._outbox.replaced = False
            message = "events.jsonl was replaced by another file; the records go there now, those since the last checkpoint too"
            self._log.write("warning", step=step, reason="log_replaced", message=message)
        content = state()
        saved = self.with_room(lambda: save_checkpoint(self._run_dir, step, content))
        self.saved_step = step
        self.save_s = time.perf_counter() - began
        self._log.write(
            "checkpoint",
            step=step,
            file=self._run_dir.relative(saved.path),
            sha256=saved.sha256,
            size_bytes=saved.size_bytes,
            seconds=round(self.save_s, 3),
        )
        with contextlib.suppress(OSError):  # the next save tries again
            prune(self._run_dir, self._keep_checkpoints, step)

    def save_or_warn(self, step: int, state: State) -> bool:
        """Save, or let training go on without, and answer False: there is a good checkpoint, and room may come back.

        Not if the whole run is gone: that is waited for, as `save_patiently` does.
        """
        try:
            self.save(step, state)
        except OSError as error:
            if self._is_gone():
                self.save_patiently(step, state)
            elif not self._fails:
                self._fails = True
                message = f"no checkpoint at step {step}: {error}; training goes on, and saves as soon as it can"
                self._log.write("warning", step=step, reason="save_failed", message=message)
            return False
        self._fails = False
        return True

    def _is_gone(self) -> bool:
        with contextlib.suppress(OSError):
            return not exists(self._run_dir.path)
        return False  # nobody can say now

    def save_patiently(self, step: int, state: State) -> None:
        """Save all that is due up to a step; raises HopelessError if the disk does not take it within a minute."""

        def save() -> None:
            self.save(step, state)
            self.with_room(self._outbox.flush)

        patiently(save, self._run_dir, f"the newest checkpoint is of step {self.saved_step or 0}")

    def keep_newest(self) -> None:
        """Remove all checkpoints but the newest: a finished run needs no other to go on from."""
        if self.saved_step is not None:
            prune(self._run_dir, 1, self.saved_step)

    def with_room(self, attempt: Callable[[], T]) -> T:
        """Try to write, and give up an older checkpoint each time that a disk or a quota is full; raises OSError.

        Only a write tells whether there is room: a quota shows in nothing else, and some filesystems report none at all.
        """
        while True:
            try:
                return attempt()
            except OSError as error:
                if error.errno not in FULL or not make_room(self._run_dir, self.saved_step or 0):
                    raise
