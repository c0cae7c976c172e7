"""What has to reach the run directory in order: log lines and pictures, kept while the disk refuses them."""

import contextlib
import errno
import os
from collections import deque
from dataclasses import dataclass

from job.rundir.directory import RunDir

_TAIL_BYTES = 2**16


@dataclass(frozen=True)
class Item:
    """One write: a line for events.jsonl if `path` is None, else the whole content of that file of the run directory."""

    path: str | None
    content: bytes


class Outbox:
    """A queue of writes that is normally empty: each is tried at once and kept, in order, when it fails.

    `error` is the failure of the last attempt, None while everything is on disk. `replaced` tells that the log was found to be
    another file than the one that was written to: whoever tells of it sets it back.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self.items: deque[Item] = deque()
        self.error: OSError | None = None
        self.replaced = False
        self._run_dir = run_dir
        self._written = 0  # bytes of the first item that are in the log already
        self._unsynced: list[bytes] = []  # lines written since the log was last known to be the file of that name
        self._unsynced_files: set[str] = set()
        self._descriptor = self._open()
        self._file = os.fstat(self._descriptor)

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
        with contextlib.suppress(OSError):
            self.write()

    def write(self) -> None:
        """As `drain`, but raises the OSError of what is refused."""
        try:
            self._run_dir.fence()
            try:
                self._write()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self._reopen()
        except OSError as error:
            self.error = error
            raise
        self.error = None

    def _write(self) -> None:
        while self.items:
            item = self.items[0]
            if item.path is None:
                # A disk that is just full takes a part of a line; what is left completes it later.
                self._written += os.write(self._descriptor, item.content[self._written :])
                if self._written < len(item.content):
                    continue
                self._written = 0
                self._unsynced.append(item.content)
            else:
                self._run_dir.replace(self._run_dir.path / item.path, item.content, sync=False)
                self._unsynced_files.add(item.path)
            self.items.popleft()

    def flush(self) -> None:
        """Bring everything to disk; raises the OSError of what it refuses."""
        self.write()
        self.sync()

    def sync(self) -> None:
        """Bring all that was written to disk, and the log to the file that has its name now; raises OSError.

        Only before a checkpoint has it to be there: what came after is done again, and what is late waits for no disk.
        """
        self._run_dir.sync([self._run_dir.path / path for path in self._unsynced_files])
        self._unsynced_files.clear()
        try:
            os.fsync(self._descriptor)
            is_same = self._is_same()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            is_same = False
        if not is_same:
            self._reopen()
            os.fsync(self._descriptor)
        self._unsynced.clear()

    def close(self) -> None:
        """Close the log."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._run_dir.events_file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)

    def _is_same(self) -> bool:
        """Whether what is written to is still the file of that name: an editor, a restore or logrotate puts another there."""
        try:
            return os.path.samestat(self._file, self._run_dir.events_file.stat())
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        """Go on in the file that has the log's name now, with all lines that are not known to have got into it."""
        self._run_dir.fence()
        descriptor = self._open()
        try:
            file = os.fstat(descriptor)
            start = max(0, file.st_size - sum(map(len, self._unsynced)) - _TAIL_BYTES)
            *lines, torn = os.pread(descriptor, file.st_size - start, start).split(b"\n")
            if torn:  # a copy that was made while a line was written, or a line of which a part was written
                os.ftruncate(descriptor, file.st_size - len(torn))
        except OSError:
            os.close(descriptor)  # the next attempt finds the old one again, and what is missing with it
            raise
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self.replaced |= not os.path.samestat(self._file, file)
        self._descriptor, self._file, self._written = descriptor, file, 0
        present = {line + b"\n" for line in lines}
        missing = [Item(None, line) for line in self._unsynced if line not in present]
        self._unsynced.clear()
        self.items.extendleft(reversed(missing))
        self._write()
