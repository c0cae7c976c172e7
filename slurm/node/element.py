"""Which run of a sweep an element of an array is."""

from collections.abc import Mapping
from pathlib import Path

from job.rundir.directory import RunDir
from job.rundir.patience import at_start
from job.rundir.sweep import SweepDir


def element_of(sweep: str, number: int, environment: Mapping[str, str]) -> RunDir:
    """The run of this task of the array with a number in a sweep.

    Raises UsageError if the sweep names none, StorageError if it could not be read for a minute.
    """
    sweep_dir = SweepDir(Path(sweep))
    task = int(environment["SLURM_ARRAY_TASK_ID"])

    def look() -> RunDir:
        sweep_dir.file.stat()  # the disk may be away
        return sweep_dir.element(number, task)

    return at_start(look, RunDir(sweep_dir.path))
