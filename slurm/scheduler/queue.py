"""What Slurm says of jobs, without accounting."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SQUEUE_TIMEOUT_S = 2.0
SCONTROL_TIMEOUT_S = 5.0

PENDING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "RESV_DEL_HOLD"}
)
ALIVE = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# What `scontrol show job` says of a job that has not been ended: SIGNALING for a moment while a signal is on its way.
GOES_ON = ALIVE - {"COMPLETING", "STAGE_OUT"}


@dataclass(frozen=True)
class Job:
    """One job as squeue shows it; `number` is what Slurm counts it as, `command` the batch script's path.

    An element of an array is `<array>_<task>`; its number may be the array's, which Slurm's commands take as all elements.
    """

    job_id: str
    number: str
    state: str
    reason: str
    command: str

    @property
    def is_pending(self) -> bool:
        """It waits for its start or its next start."""
        return self.state in PENDING

    @property
    def is_alive(self) -> bool:
        """It has processes, or may have."""
        return self.state in ALIVE

    @property
    def is_cancelled(self) -> bool:
        """Somebody has ended it by scancel."""
        return self.state.startswith("CANCELLED")

    def bears(self, job_id: str | None) -> bool:
        """Whether it is called so; earlier versions called an element of an array by its number."""
        return job_id in (self.job_id, self.number)

    def belongs_to(self, run_dir: Path) -> bool:
        """Whether it was submitted for a run: its script lies in that run's directory."""
        return self.command.startswith(f"{run_dir}/slurm/")


def list_jobs(timeout_s: float = SQUEUE_TIMEOUT_S) -> list[Job] | None:
    """This user's jobs, those that have ended minutes ago too; None if the scheduler does not answer in time."""
    answer = _ask(["squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%A|%T|%r|%o"], timeout_s)
    if answer is None:
        return None
    return [Job(*line.split("|", 4)) for line in answer.splitlines() if line.count("|") >= 4]


def show_job(job_id: str) -> dict[str, str] | None:
    """The fields of `scontrol show job`; None if there is no answer in time."""
    answer = _ask(["scontrol", "show", "job", "-o", job_id], SCONTROL_TIMEOUT_S)
    if answer is None:
        return None
    pairs = (word.partition("=") for word in answer.split())
    fields: dict[str, str] = {}
    for name, separator, value in pairs:
        if separator:
            fields.setdefault(name, value)
    return fields


def batch_script(job_id: str) -> str | None:
    """The batch script of a job of this user's; None if there is no answer in time."""
    return _ask(["scontrol", "write", "batch_script", job_id, "-"], SCONTROL_TIMEOUT_S)


def _ask(command: list[str], timeout_s: float) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
