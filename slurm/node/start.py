"""Who has started this process: a job of Slurm's, or submitit's own executor on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass

from job.rundir.liveness import Owner
from slurm.scheduler.queue import show_job


@dataclass(frozen=True)
class Start:
    """The job and how often it has been restarted; `local` is submitit's own executor.

    `job_id` is what Slurm's commands take for exactly this job: `<array>_<task>` for an element of an array, since one of the
    elements has the array's own number, which those commands take as all of them. `number` is what Slurm counts it as.
    """

    job_id: str
    restart_count: int
    local: bool
    number: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Start | None":
        """As the environment tells; None outside a job."""
        if "SUBMITIT_LOCAL_JOB_ID" in environment and environment.get("SUBMITIT_EXECUTOR") == "local":
            return cls(f"local-{environment['SUBMITIT_LOCAL_JOB_ID']}", 0, local=True)
        if "SLURM_JOB_ID" in environment:
            number = environment["SLURM_JOB_ID"]
            return cls(
                _job_id(number, environment),
                int(environment.get("SLURM_RESTART_COUNT") or 0),
                local=False,
                number=number,
            )
        return None

    @property
    def owner(self) -> Owner:
        """This process, as the one that this start has begun."""
        return Owner.this_process(self.job_id, self.restart_count, self.number)

    def is_of(self, job_id: str | None) -> bool:
        """Whether it is a start of this job, which an earlier version may have called by its number."""
        return job_id is not None and job_id in (self.job_id, self.number)


def _job_id(number: str, environment: Mapping[str, str]) -> str:
    """What Slurm's commands take for exactly this job.

    A job that an element of an array has submitted inherits the element's variables: they count only if Slurm says so too.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if not array or not task:
        return number
    element = f"{array}_{task}"
    return element if number == array or (show_job(element) or {}).get("JobId") == number else number
