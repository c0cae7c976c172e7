"""What Slurm says of jobs, without accounting."""

import os
import time
from dataclasses import dataclass
from functools import cached_property

from job.rundir.liveness import Owner
from job.rundir.sweep import run_of_script
from slurm.scheduler.ask import ask

SQUEUE_TIMEOUT_S = 2.0
SCONTROL_TIMEOUT_S = 5.0
_FORMAT = "%i|%A|%V|%T|%r|%S|%N|%o"

PENDING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING", "RESV_DEL_HOLD"}
)
ALIVE = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# What `scontrol show job` says of a job that has not been ended: SIGNALING for a moment while a signal is on its way.
GOES_ON = ALIVE - {"COMPLETING", "STAGE_OUT"}
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REVOKED",
        "TIMEOUT",
    }
)


@dataclass(frozen=True)
class Job:
    """One job as squeue shows it; `command` is the batch script's path, `submitted` when it was (re)queued, since the epoch.

    An element of an array is `<array>_<task>`; its `number` may be the array's, which Slurm's commands take as all elements.
    `starts_at` is when Slurm expects to start a pending job, or when it has started, in seconds since the epoch, None where it
    does not say; `node` is where it runs, None for nowhere yet.
    """

    job_id: str
    number: str
    submitted: str
    state: str
    reason: str
    command: str
    cluster: str | None = None
    starts_at: float | None = None
    node: str | None = None

    @property
    def is_pending(self) -> bool:
        """It waits for its start or its next start."""
        return self.state in PENDING

    @property
    def is_alive(self) -> bool:
        """It has processes, or may have; a state that this project does not know is no end."""
        return not self.is_pending and self.state not in ENDED

    @property
    def is_cancelled(self) -> bool:
        """Somebody has ended it by scancel."""
        return self.state.startswith("CANCELLED")

    @cached_property
    def run(self) -> str | None:
        """The real path of the run directory that it was submitted for, alone or as an element of a sweep; None if for none."""
        return run_of_script(self.command, self.job_id, self.cluster)

    def is_of(self, owner: Owner) -> bool:
        """Whether a process was started in this very job, not in another that bears the same number after a wrap."""
        if self.cluster and owner.cluster and self.cluster != owner.cluster:
            return False
        if owner.job_submitted is None or not {self.job_id, self.number} & {owner.job_id, owner.job_number}:
            return False
        if self.submitted == owner.job_submitted:
            return True
        # A requeue counts as a new submission of the job
        return self.command == owner.job_script and self._restarts > owner.restart_count

    @cached_property
    def _restarts(self) -> int:
        return int((show_job(self.job_id, cluster=self.cluster) or {}).get("Restarts", "0"))


def list_jobs(
    timeout_s: float = SQUEUE_TIMEOUT_S, job_id: str | None = None, cluster: str | None = None
) -> list[Job] | None:
    """This user's jobs, those that have ended minutes ago too, or those of one id; None if there is no answer in time."""
    which = ["-j", job_id] if job_id is not None else ["-u", str(os.getuid())]
    answer = ask(["squeue", "-h", "-r", "-t", "all", *which, "-o", _FORMAT], timeout_s, cluster=cluster)
    if answer.refusal is not None:
        return None
    rows = (line.split("|", 7) for line in answer.text.splitlines() if line.count("|") >= 7)
    return [
        Job(job_id, number, submitted, state, reason, command, cluster, _seconds(starts), node or None)
        for job_id, number, submitted, state, reason, starts, node, command in rows
    ]


def _seconds(text: str) -> float | None:
    """A time as squeue tells it here, None for N/A."""
    return float(text) if text.isdigit() else None


def show_job(job_id: str, patience_s: float = 0.0, cluster: str | None = None) -> dict[str, str] | None:
    """The fields of `scontrol show job`; None if there is no answer in time, or none for so long."""
    deadline = time.monotonic() + patience_s
    command = ["scontrol", "show", "job", "-o", job_id]
    while (answer := ask(command, SCONTROL_TIMEOUT_S, cluster=cluster)).is_away:
        if time.monotonic() >= deadline:
            return None
        time.sleep(1)
    if answer.refusal is not None:
        return None
    pairs = (word.partition("=") for word in answer.text.split())
    fields: dict[str, str] = {}
    for name, separator, value in pairs:
        if separator:
            fields.setdefault(name, value)
    return fields


def batch_script(job_id: str) -> str | None:
    """The batch script of a job of this user's; None if there is no answer in time."""
    answer = ask(["scontrol", "write", "batch_script", job_id, "-"], SCONTROL_TIMEOUT_S)
    return answer.text if answer.refusal is None else None
