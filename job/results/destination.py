"""Where the `--out` of a command leads: a file or a folder of files, which is there whole or not at all."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from job.errors import AaeError, UsageError
from job.output import size
from job.rundir.directory import RunDir
from job.rundir.small_file import exists, is_folder, names_in

FOLDER = "folder"
_KINDS = {
    ".png": "FILE.png",
    ".npz": "FILE.npz",
    FOLDER: "a folder (with a / at its end, or without a dot in its name)",
}


@dataclass(frozen=True)
class Destination:
    """What was typed, the path it leads to with links followed, and its kind: `.png`, `.npz` or `folder`."""

    typed: str
    path: Path
    kind: str

    @contextlib.contextmanager
    def file(self) -> Iterator[BinaryIO]:
        """Open a file that takes the place of what stands there when the block ends; as `_told`."""
        with self._told(), RunDir(self.path.parent).replacing(self.path) as file:
            yield file

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder to fill, which gets its name when the block ends, unless something has come into that meanwhile."""
        with self._told(), RunDir(self.path.parent).replacing_folder(self.path) as folder:
            yield folder
            if is_folder(self.path):
                self.path.rmdir()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Leave nothing half behind, also when killed politely; raises AaeError for what the disk refuses."""
        try:
            with _interruptible():
                yield
        except OSError as error:
            raise AaeError(f"--out {self.typed} cannot be written: {error}; nothing of it is left") from error

    def check_room(self, num_bytes: int) -> None:
        """Raise UsageError if the disk has less room than that, which it may also refuse while it is written."""
        free = shutil.disk_usage(self.path.parent).free
        if free < num_bytes:
            raise UsageError(f"--out {self.typed} would take {size(num_bytes)}, and the disk has {size(free)} left")


def destination(typed: str, *kinds: str) -> Destination:
    """What an `--out` means, of some kinds; raises UsageError if it is none of these, or could not be written anyway.

    A folder is what is one, ends with a slash, or has no suffix.
    """
    path = Path(os.path.realpath(os.path.expanduser(typed)))  # noqa: PTH111 - Path's own raises for a file called ~x
    kind = FOLDER if typed.endswith("/") or is_folder(path) or not path.suffix else path.suffix.lower()
    if kind not in kinds:
        raise UsageError(f"--out {typed} has to be {' or '.join(_KINDS[kind] for kind in kinds)}")
    if not is_folder(path.parent):
        raise UsageError(f"--out {typed}: there is no folder {path.parent}")
    if exists(path) and not (path.is_file() if kind != FOLDER else is_folder(path)):
        raise UsageError(f"--out {typed} is there already and is no {'folder' if kind == FOLDER else 'file'}")
    if kind == FOLDER and names_in(path):
        raise UsageError(f"--out {typed} is a folder with something in it already; remove it or name another")
    return Destination(typed, path, kind)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A SIGTERM and a SIGHUP end the block as Ctrl-C does, unless they are ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    taken = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
