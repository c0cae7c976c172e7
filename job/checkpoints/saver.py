"""Bringing a run's state to disk: in order, into the room there is, and with patience where the disk refuses."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from job.checkpoints.checkpoint import make_room, prune, save_checkpoint
from job.log.writer import EventLog
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.rundir.patience import patiently

SMALL_BYTES = 2**18  # what names, log lines and the status may take

State = Callable[[], dict[str, Any]]


class Saver:
    """Saves checkpoints; what is due up to their step is on disk before they are, or carried in them.

    `saved_step` is that of the newest, None before the first; `save_s` what the last took.
    """

    def __init__(self, run_dir: RunDir, outbox: Outbox, log: EventLog, keep_checkpoints: int, num_bytes: int) -> None:
        self.saved_step: int | None = None
        self.save_s = 0.0
        self._run_dir = run_dir
        self._outbox = outbox
        self._log = log
        self._keep_checkpoints = keep_checkpoints
        self._num_bytes = num_bytes
        self._fails = False  # whether the last attempt did

    def save(self, step: int, state: State) -> None:
        """Save a checkpoint of a step unless there is one; raises OSError if the disk refuses."""
        if step in (0, self.saved_step):
            return
        began = time.perf_counter()
        self._outbox.drain()
        if not self._outbox.items:
            self._outbox.sync()
        content = state()
        self.make_room(self._num_bytes)
        saved = save_checkpoint(self._run_dir, step, content)
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
            if not self._run_dir.path.exists():
                self.save_patiently(step, state)
            elif not self._fails:
                self._fails = True
                message = f"no checkpoint at step {step}: {error}; training goes on, and saves as soon as it can"
                self._log.write("warning", step=step, reason="save_failed", message=message)
            return False
        self._fails = False
        return True

    def save_patiently(self, step: int, state: State) -> None:
        """Save all that is due up to a step; raises HopelessError if the disk does not take it within a minute."""

        def save() -> None:
            self.save(step, state)
            with contextlib.suppress(OSError):  # there may be enough all the same
                self.make_room(0)
            self._outbox.flush()

        patiently(save, self._run_dir, f"the newest checkpoint is of step {self.saved_step or 0}")

    def make_room(self, num_bytes: int) -> None:
        """See to it that so much can be written beside all that is due, if need be by removing older checkpoints.

        Raises OSError if it cannot.
        """
        pending = sum(len(item.content) for item in self._outbox.items)
        make_room(self._run_dir, num_bytes + pending + SMALL_BYTES, self.saved_step or 0)
