"""OUT/<run>: files that are whole or not there, and a manifest that says which of them are collect's own."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict

from job.errors import UsageError
from job.rundir.small_file import DamagedError, is_folder, names_in, read_json

FORMAT = 1
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
# What making a file raises of records that do not mean what they should, say those of another version.
UNFIT = (ArithmeticError, LookupError, TypeError, ValueError)
_MTIME_S = 2.0  # by so much a filesystem may round a file's time


def unfit(error: Exception) -> str:
    """What to tell of one of UNFIT: where it was met too, since the fault may be this project's own."""
    met = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(met.filename).name}, line {met.lineno}"
    return f"it cannot be made of what is there ({type(error).__name__} in {where}: {error})"


class Manifest(BaseModel):
    """The content of manifest.json; `files` are the SHA-256 of all that was kept.

    `made_from` says what each file was copied from (size and time) or made of, so that what is still so is left alone; `kept` are
    the files of an earlier collect that the run itself has no more; `pending` is what a collect had set out to write.
    `begun_by` is the process of the run's first segment, None before it: a run that was removed and made anew has another.
    """

    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT
    run: str
    run_dir: str
    begun_by: str | None = None
    collected_at: str | None = None
    state: str | None = None
    step: int | None = None
    files: dict[str, str] = {}
    made_from: dict[str, Any] = {}
    kept: list[str] = []
    pending: list[str] = []


class Folder:
    """A folder to collect into, for one process at a time. What no collect has put there is never touched.

    `problems` are the files that could not be kept, with the reason, `written` and `unchanged` those that could, and `kept`
    those of an earlier collect that the run has no more.
    """

    def __init__(self, path: Path, run: str, run_dir: Path, begun_by: str | None = None) -> None:
        self.path = path
        self.problems: dict[str, str] = {}
        self.written: list[str] = []
        self.unchanged: list[str] = []
        self.kept: list[str] = []
        self._now = Manifest(run=run, run_dir=str(run_dir), begun_by=begun_by)
        self._before = self._now

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of what is kept so far."""
        return self._now.files

    @contextlib.contextmanager
    def filling(self, names: list[str]) -> Iterator[None]:
        """Take the folder, in order to keep files of these names there, and give it back; raises OSError or UsageError."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another collect is writing {self.path}; wait until it has ended") from None
            except OSError:
                pass  # a filesystem without locks
            self._before = self._read()
            self._clear_temporaries()
            self._set_out(names)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Manifest:
        path = self.path / MANIFEST
        try:
            before = read_json(path, Manifest)
        except DamagedError as error:
            raise UsageError(f"{path} is not what a collect has written: move it away, or give another OUT") from error
        if before is None and os.path.lexists(self.path / SUMS):
            raise UsageError(f"{self.path / SUMS} is not of a collect: move it away, or give another OUT")
        if before is None:
            return self._now.model_copy(deep=True)
        if self._now.begun_by != before.begun_by:
            if None not in (self._now.begun_by, before.begun_by):
                raise UsageError(f"{self.path} is of another run of this name: move it away, or give another OUT")
            self._now.begun_by = self._now.begun_by or before.begun_by
        return before

    def _clear_temporaries(self) -> None:
        """Remove what a collect that was killed left half written."""
        for folder in (self.path, *(self.path / name for name in ("lattices", "evaluations"))):
            for name in names_in(folder) if is_folder(folder) else []:
                if re.fullmatch(r"\..+\.[0-9a-f]{8}\.collecting", name):
                    with contextlib.suppress(OSError):
                        (folder / name).unlink()

    def _set_out(self, names: list[str]) -> None:
        """Say which files are about to be written: if this process dies, the next knows them for its own."""
        own = {*self._before.files, *self._before.pending}
        pending = []
        for name in names:
            if name in own:
                continue
            if os.path.lexists(self.path / name):
                self.problems[name] = "what stands there no collect has put there; move it away"
            else:
                pending.append(name)
        if pending:
            pending = [*self._before.pending, *pending]
            self._replace(MANIFEST, _encoded(self._before.model_copy(update={"pending": pending})))

    def copy(self, source: Path, name: str, *, is_immutable: bool = False) -> None:
        """Keep a copy; of what never changes under its name size and time are compared, else every byte."""
        if name in self.problems:
            return
        with self._attempt(name):
            found = source.stat()
            if not source.is_file():
                raise OSError(errno.EINVAL, "it is no file")
            seen = [found.st_size, found.st_mtime_ns]
            if is_immutable and self._before.made_from.get(name) == seen and _has(self.path / name, found):
                self._leave(name, self._before.files[name], seen)
            elif (digest := sha256(source)) == self._digest_there(name):
                self._leave(name, digest, seen)
            else:
                with self._writing(name, seen) as file, source.open("rb") as original:
                    shutil.copyfileobj(original, file)
                with contextlib.suppress(OSError):
                    os.utime(self.path / name, ns=(found.st_mtime_ns, found.st_mtime_ns))

    def is_made_from(self, made_from: Any, names: list[str]) -> bool:
        """Whether these files stand there as an earlier collect made them, of just this; they are then kept as they are."""
        if not all(
            self._before.made_from.get(name) == made_from and self._before.files.get(name) == self._digest_there(name)
            for name in names
        ):
            return False
        for name in names:
            self._leave(name, self._before.files[name], made_from)
        return True

    def make(self, name: str, made_from: Any, write: Callable[[BinaryIO], None]) -> None:
        """Keep a file that `write` fills."""
        if name in self.problems:
            return
        with self._attempt(name), self._writing(name, made_from) as file:
            write(file)

    def doubt(self, name: str) -> None:
        """Have a file made again by the next collect, whatever it is made from."""
        self._now.made_from[name] = None

    def names(self, pattern: str) -> dict[str, str]:
        """The names that match, with their SHA-256: those kept now, and those of an earlier collect that still stand there."""
        known = {**self._before.files, **self._now.files}
        return {n: known[n] for n in sorted(known) if re.fullmatch(pattern, n) and (self.path / n).is_file()}

    def close(self, collected_at: str, state: str | None, step: int | None) -> None:
        """Write the manifest, then SHA256SUMS, where anything is new; what only an earlier collect found is still kept."""
        kept = [n for n in self._before.files if n not in self._now.files and (self.path / n).is_file()]
        self._now.files |= {name: self._before.files[name] for name in kept}
        self.kept = [name for name in kept if name not in self.problems]
        told: dict[str, Any] = {"collected_at": collected_at, "state": state, "step": step, "kept": sorted(kept)}
        now = self._now.model_copy(update=told)
        if now.model_copy(update={"collected_at": self._before.collected_at}) != self._before:
            self._replace(MANIFEST, _encoded(now))
        sums = {**now.files, MANIFEST: sha256(self.path / MANIFEST)}
        lines = b"".join(_sum_line(digest, name) for name, digest in sorted(sums.items()))
        if self._digest_there(SUMS) != hashlib.sha256(lines).hexdigest():
            self._replace(SUMS, lines)

    @contextlib.contextmanager
    def _attempt(self, name: str) -> Iterator[None]:
        """One file that cannot be kept costs no other."""
        try:
            yield
        except OSError as error:
            self.problems[name] = error.strerror or str(error)
        except UNFIT as error:
            self.problems[name] = unfit(error)

    def _leave(self, name: str, digest: str, made_from: Any) -> None:
        self._now.files[name], self._now.made_from[name] = digest, made_from
        self.unchanged.append(name)

    @contextlib.contextmanager
    def _writing(self, name: str, made_from: Any) -> Iterator[BinaryIO]:
        with self._beside(name) as (file, take_its_place):
            yield file
            file.flush()
            file.seek(0)
            digest = _digest_of(file)
            if digest == self._digest_there(name):
                self._leave(name, digest, made_from)
                return
            take_its_place()
        self._now.files[name], self._now.made_from[name] = digest, made_from
        self.written.append(name)

    @contextlib.contextmanager
    def _beside(self, name: str) -> Iterator[tuple[BinaryIO, Callable[[], None]]]:
        """A temporary file beside a name, and what makes it that file; else it is gone at the end, since half a file is none."""
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.collecting")

        def take_its_place() -> None:
            file.close()  # over NFS only this tells that the disk has taken all
            temporary.replace(target)

        try:
            with temporary.open("xb+") as file:
                yield file, take_its_place
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _replace(self, name: str, content: bytes) -> None:
        with self._beside(name) as (file, take_its_place):
            file.write(content)
            take_its_place()

    def _digest_there(self, name: str) -> str | None:
        try:
            return sha256(self.path / name)
        except OSError:
            return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content; raises OSError."""
    with path.open("rb") as file:
        return _digest_of(file)


def _digest_of(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] # a real file has all that it needs


def _has(path: Path, source: os.stat_result) -> bool:
    """Whether there is a copy, by its size and time."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_size == source.st_size and abs(found.st_mtime - source.st_mtime) < _MTIME_S


def _encoded(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(), indent=1) + "\n").encode()


def _sum_line(digest: str, name: str) -> bytes:
    """As `sha256sum` writes it: a name that would break the line is escaped, and a backslash before all says so."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return ("\\" if escaped != name else "").encode() + f"{digest}  ".encode() + os.fsencode(escaped) + b"\n"
