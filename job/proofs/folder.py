"""A folder of its own below AAE_RUNS_DIR, where a proof trains the runs that it looks at."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from job.errors import UsageError


@dataclass
class Kept:
    """Where the folder is, and whether it stays when the work is done."""

    path: Path
    stays: bool = False


@contextlib.contextmanager
def working_folder(runs_dir: Path, name: str) -> Iterator[Kept]:
    """Make a folder, and remove it in the end; raises UsageError if it cannot be made."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        kept = Kept(Path(tempfile.mkdtemp(prefix=f".{name}-", dir=runs_dir)))
    except OSError as error:
        raise UsageError(f"AAE_RUNS_DIR={runs_dir} cannot be written: {error}; set it to another folder") from error
    try:
        yield kept
    finally:
        if not kept.stays:
            shutil.rmtree(kept.path, ignore_errors=True)
