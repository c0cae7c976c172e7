"""Which run a command means: a path, or a name below AAE_RUNS_DIR."""

import os
from pathlib import Path

from job.errors import UsageError
from job.rundir.directory import RunDir


def default_runs_dir() -> Path:
    """AAE_RUNS_DIR, for commands that look at runs and read no other setting."""
    return Path(os.environ.get("AAE_RUNS_DIR") or "runs").expanduser()


def find_run(run: str) -> RunDir:
    """A run given as a path or as a name below AAE_RUNS_DIR; raises UsageError if neither is one."""
    candidates = [Path(run), default_runs_dir() / run]
    for path in candidates:
        if (path / "settings.json").is_file():
            return RunDir(path.absolute())
    raise UsageError(
        f"no run {run!r}: no settings.json in {' nor in '.join(str(path.absolute()) for path in candidates)}; "
        "give a run's path, or its name and AAE_RUNS_DIR"
    )
