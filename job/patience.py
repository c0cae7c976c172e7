"""Waiting for a disk that takes no writes: full, read-only, or away."""

import time
from collections.abc import Callable

from job.errors import HopelessError
from job.rundir import RunDir

PATIENCE_S = 60.0


def patiently(attempt: Callable[[], None], run_dir: RunDir, left: str) -> None:
    """Try until it raises no OSError; raises HopelessError after a minute, with what is left of the run as `left` says."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() > deadline:
                raise HopelessError(
                    "disk",
                    f"{run_dir.path} takes no writes: {error}; {left}. Make room, or bring the folder back, and type the "
                    "same command again",
                ) from error
            time.sleep(1)
