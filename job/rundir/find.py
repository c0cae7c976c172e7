"""Which run, or sweep, a command means: a path, or a name below AAE_RUNS_DIR."""

import os
from dataclasses import dataclass
from pathlib import Path

from job.errors import UsageError
from job.rundir.directory import RunDir
from job.rundir.small_file import exists
from job.rundir.sweep import SweepDir


@dataclass(frozen=True)
class Found:
    """The runs that were meant, and the name of the sweep whose elements they are, None where one run was named."""

    runs: list[RunDir]
    sweep: str | None = None


def default_runs_dir() -> Path:
    """AAE_RUNS_DIR, for commands that look at runs and read no other setting."""
    return Path(os.environ.get("AAE_RUNS_DIR") or "runs").expanduser()


def run_around(path: Path) -> Path | None:
    """The run directory that a path is, or lies in, links resolved; None where it is in none."""
    here = Path(os.path.realpath(path))
    # No further up: to ask for a file in /home may have an automounter look for a user of that name.
    for folder in (here, *here.parents[:2]):
        run_dir = RunDir(folder)
        if exists(run_dir.settings_file) and exists(run_dir.status_file):  # what is collected of a run has no status
            return folder
    return None


def find_run(run: str) -> RunDir:
    """A run given as a path or as a name below AAE_RUNS_DIR; raises UsageError if neither is one."""
    candidates = [Path(run), default_runs_dir() / run]
    for path in candidates:
        if (path / "settings.json").is_file():
            return RunDir(path.absolute())
    sweep = _find_sweep(run)
    if sweep is not None and sweep.runs:
        raise UsageError(
            f"{run!r} is a sweep of {len(sweep.runs)} runs; name one of them, such as {sweep.runs[0].path.name}; "
            f"`aae-slurm status {run} --runs` lists them"
        )
    raise UsageError(
        f"no run {run!r}: no settings.json in {' nor in '.join(str(path.absolute()) for path in candidates)}; "
        "give a run's path, or its name and AAE_RUNS_DIR"
    )


def find_runs(name: str) -> Found:
    """As `find_run`, or all runs of a sweep given by its name, or by the path that it would have if it were a run."""
    try:
        return Found([find_run(name)])
    except UsageError:
        found = _find_sweep(name)
        if found is None:
            raise
        return found


def _find_sweep(name: str) -> Found | None:
    for runs_dir in (default_runs_dir(), Path(name).parent):
        sweep_dir = SweepDir.named(runs_dir.absolute(), Path(name).name)
        if Path(name).name and (sweep := sweep_dir.read()) is not None:
            return Found([sweep_dir.run_dir(element.run) for element in sweep.elements], sweep.name)
    return None
