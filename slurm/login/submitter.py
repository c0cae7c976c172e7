"""One submitter at a time."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from job.errors import UsageError
from job.rundir.directory import create_exclusively
from job.rundir.liveness import Owner, read_owner

SUBMITTER_WAIT_S = 60.0


@contextlib.contextmanager
def only_submitter(folder: Path) -> Iterator[Callable[[], None]]:
    """Keep a second shell from submitting the same run, or sweep, at the same time; a dead one's mark is taken away.

    Makes the folder, and removes it if nothing else has come into it. Gives a function to call now and then where it takes long,
    or others take this one for dead. Raises UsageError if the folder cannot be written.
    """
    mark = folder / ".submitting"
    me = Owner.this_process()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(mark, me)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error}; make it writable or set AAE_RUNS_DIR to a folder that is"
        ) from error

    def alive() -> None:
        with contextlib.suppress(OSError):
            os.utime(mark)

    try:
        yield alive
    finally:
        mark.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # one that holds anything stays


def _take(mark: Path, me: Owner) -> None:
    seen, deadline = 0, time.monotonic() + SUBMITTER_WAIT_S
    while True:
        try:
            return create_exclusively(mark, me.model_dump_json().encode())
        except FileExistsError:
            holder = read_owner(mark)
            with contextlib.suppress(FileNotFoundError):
                if (at := mark.stat().st_mtime_ns) != seen:
                    seen, deadline = at, time.monotonic() + SUBMITTER_WAIT_S
            if (holder is not None and holder.is_over(me)) or time.monotonic() > deadline:
                mark.unlink(missing_ok=True)
            time.sleep(0.1)
