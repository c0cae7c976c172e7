"""The run directory: every path in it, and the only ways to write there."""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from job.rundir.small_file import exists, is_folder, names_in

STEP_NAME = "step-{:012d}"

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or this user's share of it; room may come back
# What a filesystem answers that cannot do a thing at all: sync a folder, make a hard link, touch a file.
CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LINKS = (*CANNOT, errno.EPERM, errno.EMLINK)


class RunDir:
    """Paths of one run and atomic writes below them.

    `fence` is asked right before anything becomes visible and raises when this process is no longer the run's writer.
    `cannot_sync` tells that the filesystem cannot bring names to disk, which nothing here needs but after a power cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fence: Callable[[], None] = lambda: None
        self.cannot_sync = False

    @property
    def settings_file(self) -> Path:
        return self.path / "settings.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def cancel_mark(self) -> Path:
        return self.path / ".cancel"

    @property
    def slurm(self) -> Path:
        return self.path / "slurm"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lattices(self) -> Path:
        return self.path / "lattices"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def latest_lattice(self) -> Path:
        return self.lattices / "latest.png"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def final_weights(self) -> Path:
        return self.final / "weights.safetensors"

    @property
    def final_lattice(self) -> Path:
        return self.final / "lattice.png"

    @property
    def final_curves(self) -> Path:
        return self.final / "curves.png"

    @property
    def final_codes(self) -> Path:
        return self.final / "codes.npz"

    @property
    def final_samples(self) -> Path:
        return self.final / "samples.png"

    @property
    def final_summary(self) -> Path:
        return self.final / "summary.json"

    def claim_file(self, segment: int) -> Path:
        return self.path / ".claims" / f"{segment:06d}"

    def pass_file(self, segment: int) -> Path:
        """There as long as the segment may write."""
        return self.path / ".claims" / f"{segment:06d}.pass"

    def told_mark(self, segment: int) -> Path:
        """There once AAE_ON_END has been started for the end that the segment wrote."""
        return self.path / ".claims" / f"{segment:06d}.told"

    def checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / (STEP_NAME.format(step) + ".pt")

    def checkpoint_steps(self, known_step: int | None = None) -> list[int]:
        """Steps of the checkpoints, newest first; `known_step` is looked up by name, since a listing may lag. Raises OSError."""
        names = names_in(self.checkpoints)
        listed = {int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d{12})\.pt", name))}
        if known_step and exists(self.checkpoint_file(known_step)):
            listed.add(known_step)
        return sorted(listed, reverse=True)

    def lattice_file(self, step: int) -> Path:
        return self.lattices / (STEP_NAME.format(step) + ".png")

    def evaluation_file(self, step: int) -> Path:
        return self.evaluations / (STEP_NAME.format(step) + ".json")

    def relative(self, path: Path) -> str:
        """A path below the run directory as it is written in records: a run may be moved."""
        return path.relative_to(self.path).as_posix()

    def replace(self, path: Path, content: bytes, *, sync: bool = True) -> None:
        """Write a file whole or not at all; raises OSError and leaves what stood there."""
        try:
            self._replace(path, content, sync)
        except FileNotFoundError:
            # A cancel, say, meets a start, which clears temporaries away: once.
            self._replace(path, content, sync)

    def _replace(self, path: Path, content: bytes, sync: bool) -> None:
        with self.replacing(path, sync=sync) as file:
            file.write(content)

    @contextlib.contextmanager
    def replacing(self, path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
        """Open a temporary beside `path`, which takes its place when the block ends without an exception."""
        if path.parent != self.path:
            # Never the run directory itself: one that is gone may be an unmounted disk
            path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(_temporary_name(path.name))
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            self.fence()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if sync:
            self._sync_folder(path.parent)

    def sync(self, paths: Iterable[Path]) -> None:
        """Bring files that were written without that to disk, with their names; those that are gone are left out."""
        folders = set()
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                folders.add(path.parent)
        for folder in folders:
            self._sync_folder(folder)

    def overwrite(self, path: Path, content: bytes) -> None:
        """Write over a small file in place, in one write, spaces at its end if it was longer; raises OSError."""
        self.fence()
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, content.ljust(os.fstat(descriptor).st_size), 0)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def replacing_folder(self, path: Path) -> Iterator[Path]:
        """Fill a temporary folder, which takes the place of the folder `path` when the block ends; as `replacing`."""
        temporary = path.with_name(_temporary_name(path.name))
        temporary.mkdir()
        try:
            yield temporary
            self._sync_folder(temporary)
            self.remove_folder(path)
            temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._sync_folder(path.parent)

    def _sync_folder(self, folder: Path) -> None:
        """Bring a folder's names to disk, where the filesystem can; raises OSError if the disk refuses."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            self.cannot_sync = True
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        self.fence()
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder so that it is seen whole or not at all; does nothing if there is none."""
        self.fence()
        if is_folder(path):
            aside = path.with_name(_temporary_name(path.name))
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def clear_temporaries(self) -> None:
        """Remove what killed writers left behind. Only the run's writer may call this."""
        self.fence()
        for folder in (self.path, self.checkpoints, self.lattices, self.evaluations, self.claim_file(1).parent):
            for name in names_in(folder):
                if name.startswith(".") and name.endswith(".tmp"):
                    stale = folder / name
                    if is_folder(stale):
                        shutil.rmtree(stale, ignore_errors=True)
                    else:
                        stale.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}.tmp"


def create_exclusively(path: Path, content: bytes) -> None:
    """Create a file that must not exist, whole; raises FileExistsError. Of several at once, on any machine, one wins."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        _create(temporary, content)
        try:
            path.hardlink_to(temporary)
        except OSError as error:
            try:
                num_names = temporary.stat().st_nlink
            except FileNotFoundError:
                # Cleared away as a leftover by the run's writer: whoever wants the name is to look for that one.
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            # Over NFS the answer may get lost: two names mean that the link was made.
            if num_names == 2:
                return
            if error.errno not in _NO_LINKS:
                raise
            _create(path, content)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
