"""sweep.json: which runs a sweep consists of, and which arrays of Slurm's were to train them.

A sweep is a set of ordinary runs. An array's entry is written before Slurm is asked, so that each of its elements finds its run by
its index, and is found by it, even if the submitter dies before it learns the array's id.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from job.errors import UsageError
from job.rundir.directory import RunDir
from job.rundir.small_file import DamagedError, exists, names_in, read_json

FOLDER = ".sweeps"
FORMAT = 1


class Axis(BaseModel):
    """Settings that vary together: a list of their values for each point of the axis."""

    model_config = ConfigDict(frozen=True)

    fields: list[str]
    values: list[list[Any]]


class Element(BaseModel):
    """One run of a sweep, named under AAE_RUNS_DIR, and what it does not share with all others."""

    model_config = ConfigDict(frozen=True)

    index: int
    run: str
    values: dict[str, Any]


class Array(BaseModel):
    """One job array: its task k, from 0, is the element `indices[k]`; `job_id` is None until Slurm has told it.

    `parallel` is how many elements may run at once, None for as many as the cluster lets.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    job_id: str | None = None
    cluster: str | None = None
    indices: list[int]
    parallel: int | None = None
    submitted_at: str


class Sweep(BaseModel):
    """The content of sweep.json; `base` holds the fixed settings that all elements share."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    name: str
    axes: list[Axis]
    base: dict[str, Any]
    elements: list[Element]
    arrays: list[Array] = []

    def run_of_task(self, array: Array, task: int) -> str | None:
        """The name of the run that a task of an array trains, None if it has no such task."""
        by_index = {element.index: element.run for element in self.elements}
        return by_index.get(array.indices[task]) if 0 <= task < len(array.indices) else None

    def run_of_job(self, job_id: str, cluster: str | None = None) -> str | None:
        """The name of the run that a job trains which was submitted from this sweep's folder; None for no job of an array.

        A job whose array is not known is of the entry that has not been told its id yet: there is at most one.
        """
        number, _, task = job_id.partition("_")
        if not task.isdigit():
            return None
        known = [a for a in self.arrays if a.job_id == number and (not cluster or a.cluster in (None, cluster))]
        array = next(iter(known or [a for a in self.arrays if a.job_id is None]), None)
        return self.run_of_task(array, int(task)) if array is not None else None

    def jobs_of(self, run: str) -> list[str]:
        """The ids of all jobs that were to train a run, oldest first."""
        index = next((element.index for element in self.elements if element.run == run), None)
        return [f"{a.job_id}_{a.indices.index(index)}" for a in self.arrays if a.job_id and index in a.indices]


class SweepDir:
    """Where a sweep is kept: AAE_RUNS_DIR/.sweeps/<name>, beside the runs, which lie in AAE_RUNS_DIR as any others."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def named(cls, runs_dir: Path, name: str) -> "SweepDir":
        """That of a sweep's name."""
        return cls(runs_dir / FOLDER / name)

    @property
    def file(self) -> Path:
        return self.path / "sweep.json"

    @property
    def slurm(self) -> Path:
        """submitit's files, and what the elements print."""
        return self.path / "slurm"

    @property
    def runs_dir(self) -> Path:
        return self.path.parent.parent

    def run_dir(self, run: str) -> RunDir:
        """The directory of one of its runs."""
        return RunDir(self.runs_dir / run)

    def read(self) -> Sweep | None:
        """The sweep, None if there is none; raises UsageError if its file is damaged, OSError if it cannot be read now."""
        if not exists(self.file):
            return None
        found = self.file.stat()
        return _read(self.file, found.st_mtime_ns, found.st_ino, found.st_size)

    def write(self, sweep: Sweep) -> None:
        """Replace sweep.json."""
        RunDir(self.path).replace(self.file, orjson.dumps(sweep.model_dump(), option=orjson.OPT_INDENT_2) + b"\n")

    def element(self, number: int, task: int) -> RunDir:
        """The run of a task of the array with a number; raises UsageError if there is none, OSError if it cannot be read now."""
        sweep = self.read()
        array = next((a for a in sweep.arrays if a.number == number), None) if sweep is not None else None
        run = sweep.run_of_task(array, task) if sweep is not None and array is not None else None
        if run is None:
            raise UsageError(f"{self.file} names no run for task {task} of array {number}; submit the sweep again")
        return self.run_dir(run)


@lru_cache(maxsize=64)  # several hundred jobs of an array are told by the same file
def _read(file: Path, *_: int) -> Sweep | None:
    try:
        sweep = read_json(file, Sweep)
    except DamagedError as error:
        raise UsageError(f"{error}; restore it, or take another name for the sweep") from error
    if sweep is not None and sweep.format != FORMAT:
        raise UsageError(
            f"{file} has format {sweep.format}, this version reads {FORMAT}: install a newer version of this project"
        )
    return sweep


class Sweeps:
    """The sweeps of a runs directory, each read once; `damaged` says of those that are passed over what is wrong with them."""

    def __init__(self, runs_dir: Path) -> None:
        self.all: dict[str, tuple[SweepDir, Sweep]] = {}
        self.damaged: list[str] = []
        for name in names_in(runs_dir / FOLDER):
            sweep_dir = SweepDir.named(runs_dir, name)
            try:
                sweep = sweep_dir.read()
            except UsageError as error:
                self.damaged.append(str(error))
                continue
            if sweep is not None:
                self.all[name] = (sweep_dir, sweep)

    def of(self, run: str) -> list[tuple[SweepDir, Sweep]]:
        """Those that a run is an element of, the one that was submitted last at the end."""
        found = [(d, s) for d, s in self.all.values() if any(element.run == run for element in s.elements)]
        return sorted(found, key=lambda pair: max((a.submitted_at for a in pair[1].arrays), default=""))

    def last_job(self, run: str) -> str | None:
        """The id of the job that was submitted last for a run as an element of any, None if none was."""
        ids = [job_id for _, sweep in self.of(run) for job_id in sweep.jobs_of(run)]
        return max(ids, key=lambda job_id: int(job_id.partition("_")[0]), default=None)


def printed_by(run_dir: RunDir, job_id: str | None) -> Path:
    """What a job of a run has printed, or its elements' file in the sweep that it was submitted for."""
    for sweep_dir, sweep in Sweeps(run_dir.path.parent).of(run_dir.path.name) if "_" in (job_id or "") else []:
        if sweep.run_of_job(job_id or "") == run_dir.path.name:
            return sweep_dir.slurm / f"{job_id}_0_log.out"
    return run_dir.slurm / f"{job_id}_0_log.out"


def run_of_script(script: str, job_id: str, cluster: str | None = None) -> str | None:
    """The real path of the run directory that a job trains, by where its batch script lies; None for a job of nobody here.

    The script of a run's own job lies in that run's directory, the script of an array in its sweep's.
    """
    folder, separator, name = script.rpartition("/slurm/")
    if not separator or not name:
        return None
    if os.path.basename(os.path.dirname(folder)) != FOLDER:  # noqa: PTH119, PTH120 - foreign text, not always a path
        return os.path.realpath(folder)
    sweep_dir = SweepDir(Path(folder))
    try:
        sweep = sweep_dir.read()
    except UsageError:
        return None
    run = sweep.run_of_job(job_id, cluster) if sweep is not None else None
    return os.path.realpath(sweep_dir.run_dir(run).path) if run is not None else None
