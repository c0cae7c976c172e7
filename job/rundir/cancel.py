"""The mark that stops a run for good: left by whoever cancels it, found by the process at its next heartbeat."""

from pydantic import BaseModel

from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.small_file import DamagedError, read_json


class CancelMark(BaseModel):
    """Which job, or which process, is to stop and not to come back; `others` are further jobs of the run's."""

    job_id: str | None = None
    others: list[str] = []
    host: str | None = None
    pid: int | None = None
    time: str = ""

    def names(self, owner: Owner) -> bool:
        """Whether it is this owner's job that is to stop."""
        return bool(({self.job_id, *self.others} & {owner.job_id, owner.job_number}) - {None})

    def leave(self, run_dir: RunDir) -> None:
        """Leave the mark in the run directory."""
        run_dir.replace(run_dir.cancel_mark, self.model_dump_json().encode())


def read_mark(run_dir: RunDir) -> CancelMark | None:
    """The mark in a run directory, None if there is none; a damaged one names nobody. Raises OSError if it cannot be read now."""
    try:
        return read_json(run_dir.cancel_mark, CancelMark)
    except DamagedError:
        return CancelMark()


def lift_mark(run_dir: RunDir, found: CancelMark | None, owner: Owner) -> None:
    """Let a start of this owner's job go on in spite of the mark that it found.

    One that was left since then, or that names this very job, is meant for this start, and stays.
    """
    if found is not None and found == read_mark(run_dir) and not found.names(owner):
        remove_mark(run_dir)


def remove_mark(run_dir: RunDir) -> None:
    """Let the run go on: for whoever starts or submits it on purpose."""
    run_dir.remove(run_dir.cancel_mark)
