"""Waiting for a disk that takes no writes: full, read-only, or away."""

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from job.errors import HopelessError
from job.rundir.directory import RunDir

PATIENCE_S = 60.0

T = TypeVar("T")


def patiently(attempt: Callable[[], T], run_dir: RunDir, left: str, only: Collection[int] | None = None) -> T:
    """Try until it raises no OSError, or none whose number is in `only`.

    Raises HopelessError after a minute, with what is left of the run as `left` says.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if only is not None and error.errno not in only:
                raise
            if time.monotonic() > deadline:
                raise HopelessError(
                    "disk",
                    f"{run_dir.path} takes no writes: {error}; {left}. Make room, or bring the folder back, and type the "
                    "same command again",
                ) from error
            time.sleep(1)
