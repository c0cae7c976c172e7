"""What has to reach the run directory in order: log lines and pictures, kept while the disk refuses them."""

import errno
import os
from collections import deque
from dataclasses import dataclass

from job.rundir.directory import RunDir


@dataclass(frozen=True)
class Item:
    """One write: a line for events.jsonl if `path` is None, else the whole content of that file of the run directory."""

    path: str | None
    content: bytes


class Outbox:
    """A queue of writes that is normally empty: each is tried at once and kept, in order, when it fails.

    `error` is the failure of the last attempt, None while everything is on disk.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self.items: deque[Item] = deque()
        self.error: OSError | None = None
        self._run_dir = run_dir
        self._written = 0  # bytes of the first item that are in the log already
        self._descriptor = os.open(run_dir.events_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, line: bytes) -> bytes:
        """Append one line to the log, now or as soon as the disk takes it."""
        self.items.append(Item(None, line))
        self.drain()
        return line

    def put(self, path: str, content: bytes) -> None:
        """Write one file, now or as soon as the disk takes it."""
        self.items.append(Item(path, content))
        self.drain()

    def drain(self) -> None:
        """Try everything that waits, in order; stops at the first failure. Raises TakenOverError."""
        try:
            self._run_dir.fence()
            while self.items:
                item = self.items[0]
                if item.path is None:
                    # A disk that is just full takes a part of a line; what is left completes it later.
                    self._written += os.write(self._descriptor, item.content[self._written :])
                    if self._written < len(item.content):
                        continue
                    self._written = 0
                else:
                    self._run_dir.replace(self._run_dir.path / item.path, item.content)
                self.items.popleft()
        except OSError as error:
            self.error = error
        else:
            self.error = None

    def flush(self) -> None:
        """Bring everything to disk; raises the OSError of what it refuses."""
        self.drain()
        if self.error is not None:
            raise self.error
        self.sync()

    def sync(self) -> None:
        """Bring the log to disk; raises OSError, also if somebody has moved or removed the log."""
        os.fsync(self._descriptor)
        if not os.path.samestat(os.fstat(self._descriptor), self._run_dir.events_file.stat()):
            raise OSError(
                errno.ESTALE, "this is no longer the file that the records go to", str(self._run_dir.events_file)
            )

    def close(self) -> None:
        """Close the log."""
        os.close(self._descriptor)
