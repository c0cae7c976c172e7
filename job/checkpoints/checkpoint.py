"""Checkpoints: one file each, whole or absent, with a digest over every byte of it.

The file is torch's own zip archive, so `torch.load(file, weights_only=True)` reads it; the SHA-256 of everything before
it stands in the archive's comment, written while the content streams to disk.
"""

import hashlib
import io
import pickle
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from job.errors import CheckpointError, HopelessError, StorageError, UsageError
from job.rundir.directory import RunDir
from job.rundir.patience import at_start
from job.rundir.small_file import exists, names_in

FORMAT = 1
LAG_S = 30.0  # how long another node's file may take to be seen on a shared filesystem

_NO_COMMENT = struct.pack("<H", 0)  # how a zip archive without a comment ends: the comment's length
_COMMENT = struct.pack("<H", 64)  # a hexadecimal SHA-256
_TRAILER_BYTES = len(_COMMENT) + 64


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on disk."""

    path: Path
    sha256: str
    size_bytes: int


class _Digesting:
    """A file that hashes what is written and holds the last two bytes back, which are to be replaced."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.tail = b""
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        # A large block is passed on without a copy; only its last two bytes wait.
        block = memoryview(data) if len(data) > 2 else memoryview(self.tail + data)
        ready = (self.tail, block[:-2]) if len(data) > 2 else (block[:-2],)
        for part in ready:
            self.digest.update(part)
            try:
                self._file.write(part)
            except OSError as error:
                self.error = error
                raise
        self.tail = bytes(block[-2:])
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(run_dir: RunDir, step: int, state: dict[str, Any]) -> Saved:
    """Write one checkpoint, synced, under its final name; raises OSError and leaves nothing behind."""
    path = run_dir.checkpoint_file(step)
    with run_dir.replacing(path) as file:
        digesting = _Digesting(file)
        try:
            torch.save({"format": FORMAT, "step": step, **state}, digesting)  # type: ignore[arg-type]  # write and flush are all it needs
        except RuntimeError:
            # torch complains about the archive that it could not end, and hides why.
            if digesting.error is not None:
                raise digesting.error from None
            raise
        if digesting.tail != _NO_COMMENT:
            raise AssertionError(f"torch.save ended its archive with {digesting.tail!r}")
        sha256 = digesting.digest.hexdigest()
        file.write(_COMMENT + sha256.encode())
        size_bytes = file.tell()
    return Saved(path, sha256, size_bytes)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and verify one checkpoint, tensors on the CPU; nothing in it is executed.

    Raises CheckpointError if a byte of it is not as written or it is no checkpoint, UsageError if a newer version of
    this project wrote it, OSError if it cannot be read.
    """
    content = path.read_bytes()
    written = content[-64:]
    computed = hashlib.sha256(content[:-_TRAILER_BYTES]).hexdigest().encode()
    if content[-_TRAILER_BYTES:-64] != _COMMENT or written != computed:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is {computed.decode()}, not {written!r} as written in it"
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is refused: {(str(error) or repr(error)).splitlines()[0]}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is refused: no checkpoint of this project")
    if state["format"] != FORMAT:
        raise UsageError(
            f"{path} has format {state['format']}, this version reads {FORMAT}; "
            "install the version recorded in settings.json, or start a new run"
        )
    return state


def load_newest(
    run_dir: RunDir, known_step: int | None, tell: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any] | None, list[CheckpointError]]:
    """The newest checkpoint that verifies, None if there has never been one, and the errors of the bad ones before it.

    A damaged one is renamed, never deleted; one that cannot be read now is waited for, as is that of `known_step`, which may
    be late to appear on a shared filesystem. Raises HopelessError if there has been a checkpoint and none can be used,
    StorageError if one of them may be usable another time.
    """
    bad: list[CheckpointError] = []
    away: StorageError | None = None
    if known_step and not _appears(run_dir, known_step, tell):
        bad.append(
            CheckpointError(f"{run_dir.checkpoint_file(known_step)} is known to have been written and is not there")
        )
    for step in at_start(lambda: run_dir.checkpoint_steps(known_step), run_dir, tell):
        path = run_dir.checkpoint_file(step)
        try:
            return at_start(partial(read_checkpoint, path), run_dir, tell), bad
        except CheckpointError as error:
            at_start(partial(_set_aside, run_dir, path, "bad"), run_dir, tell)
            bad.append(CheckpointError(f"{error}; kept aside as {path.name}.bad"))
        except StorageError as error:
            away = error
            bad.append(CheckpointError(f"{path} cannot be read: {error}"))
    if away is not None:
        raise away
    names = at_start(lambda: names_in(run_dir.checkpoints), run_dir, tell)
    if known_step or bad or any(name.endswith(".pt.bad") for name in names):
        raise HopelessError(
            "no_checkpoint",
            "\n".join(
                [
                    f"no checkpoint in {run_dir.checkpoints} can be read, though there has been one"
                    + (f" at step {known_step}" if known_step else ""),
                    *(f"  {error}" for error in bad),
                    "restore one from a backup, or start again under another AAE_RUN_NAME; nothing was overwritten",
                ]
            ),
        )
    return None, bad


def _appears(run_dir: RunDir, step: int, tell: Callable[[str], None]) -> bool:
    path = run_dir.checkpoint_file(step)
    deadline = time.monotonic() + LAG_S
    told = False
    while not at_start(lambda: exists(path), run_dir, tell):
        if exists(_aside(path, "bad")) or time.monotonic() > deadline:
            return False
        if not told:
            tell(f"{path} is known to have been written and cannot be seen yet: waiting up to {LAG_S:.0f} s for it")
            told = True
        time.sleep(0.5)
        run_dir.checkpoint_steps()  # over NFS, asking for the folder's names brings the new ones
    return True


def _set_aside(run_dir: RunDir, path: Path, why: str) -> None:
    run_dir.fence()
    path.rename(_aside(path, why))


def make_room(run_dir: RunDir, verified_step: int) -> bool:
    """Remove the oldest checkpoint before that of `verified_step`; False if there is none. Raises OSError.

    The one of `verified_step`, which this process has written or read, is what a crash would fall back to, and stays.
    """
    older = [step for step in run_dir.checkpoint_steps() if step < verified_step]
    if not older:
        return False
    run_dir.remove(run_dir.checkpoint_file(older[-1]))
    return True


def prune(run_dir: RunDir, keep: int, newest: int) -> None:
    """Remove all but the newest `keep` checkpoints up to `newest`, the one just written, which always stays.

    One of a later step is of a segment that was given up, and too late to be gone on from: it is set aside.
    """
    steps = run_dir.checkpoint_steps(newest)
    for step in steps:
        if step > newest:
            _set_aside(run_dir, run_dir.checkpoint_file(step), "late")
    for step in [step for step in steps if step <= newest][keep:]:
        run_dir.remove(run_dir.checkpoint_file(step))


def _aside(path: Path, why: str) -> Path:
    return path.with_name(f"{path.name}.{why}")
