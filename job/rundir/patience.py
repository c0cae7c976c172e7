"""Waiting for a disk that takes no writes or answers no reads: full, read-only, failing over, or away."""

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from job.errors import HopelessError, StorageError, UsageError
from job.rundir.directory import FULL, RunDir
from job.rundir.small_file import exists

PATIENCE_S = 60.0
TOLD_AFTER_S = 3.0
PAUSES_S = (0.05, 0.2, 0.5, 1.0)  # the last again and again

T = TypeVar("T")


def patiently(attempt: Callable[[], T], run_dir: RunDir, left: str) -> T:
    """Try until it raises no OSError.

    Raises HopelessError after a minute, with what is left of the run as `left` says.
    """
    try:
        return _until_it_works(attempt, None, lambda _: None)
    except _GaveUpError as gave_up:
        raise _full(run_dir, left, gave_up.error) from gave_up.error


def at_start(
    attempt: Callable[[], T],
    run_dir: RunDir,
    tell: Callable[[str], None] = lambda _: None,
    only: Collection[int] | None = None,
) -> T:
    """Try to read or write what a start needs until it raises no OSError, or none whose number is in `only`.

    Raises StorageError after a minute, HopelessError if the disk is full. `tell` gets a line about the waiting.
    """
    try:
        return _until_it_works(attempt, only, tell)
    except _GaveUpError as gave_up:
        if gave_up.error.errno in FULL:
            raise _full(run_dir, "nothing was written", gave_up.error) from gave_up.error
        raise StorageError(
            f"{run_dir.path} could not be read or written for {PATIENCE_S:.0f} s: {gave_up.error}. Nothing is lost; bring the "
            "folder back, see that it may be read and written, and type the same command again"
        ) from gave_up.error


def until_there(run_dir: RunDir, tell: Callable[[str], None] = lambda _: None) -> None:
    """Wait for a run that was submitted to be seen; raises as `at_start`, and UsageError if somebody has removed it."""
    try:
        at_start(run_dir.settings_file.stat, run_dir, tell)
    except StorageError as error:
        # Not if it has gone away with its disk
        if exists(run_dir.path.parent) and not exists(run_dir.settings_file):
            raise UsageError(f"{run_dir.path} holds no settings.json; submit the run again") from error
        raise


class _GaveUpError(Exception):
    def __init__(self, error: OSError) -> None:
        self.error = error


def _until_it_works(attempt: Callable[[], T], only: Collection[int] | None, tell: Callable[[str], None]) -> T:
    began = time.monotonic()
    pauses, told = iter(PAUSES_S), False
    while True:
        try:
            return attempt()
        except OSError as error:
            if only is not None and error.errno not in only:
                raise
            waited_s = time.monotonic() - began
            if waited_s > PATIENCE_S:
                raise _GaveUpError(error) from error
            if not told and waited_s > TOLD_AFTER_S:
                told = True
                tell(f"waiting up to {PATIENCE_S:.0f} s for the disk: {error}")
            time.sleep(next(pauses, PAUSES_S[-1]))


def _full(run_dir: RunDir, left: str, error: OSError) -> HopelessError:
    return HopelessError(
        "disk",
        f"{run_dir.path} takes no writes: {error}; {left}. Make room, or bring the folder back, and type the same command again",
    )
