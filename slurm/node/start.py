"""Who has started this process: a job of Slurm's, or submitit's own executor on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.rundir.liveness import Owner
from slurm.scheduler.queue import list_jobs


@dataclass(frozen=True)
class Start:
    """The job and how often it has been restarted; `local` is submitit's own executor.

    `job_id` is what Slurm's commands take for exactly this job: `<array>_<task>` for an element of an array, since one of the
    elements has the array's own number, which those commands take as all of them. `number` is what Slurm counts it as;
    `submitted` and `script` tell it from another job that bears its number one day, None where Slurm gave no answer.
    `node` is Slurm's name for the machine, `mem_mb` the memory that the job is given there, in MiB, None where it is not limited.
    """

    job_id: str
    restart_count: int
    local: bool
    number: str | None = None
    submitted: str | None = None
    script: str | None = None
    node: str | None = None
    cluster: str | None = None
    mem_mb: int | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Start | None":
        """As the environment and, for a job of its own, Slurm tells; None outside a job."""
        if "SUBMITIT_LOCAL_JOB_ID" in environment and environment.get("SUBMITIT_EXECUTOR") == "local":
            return cls(f"local-{environment['SUBMITIT_LOCAL_JOB_ID']}", 0, local=True)
        if "SLURM_JOB_ID" not in environment:
            return None
        number = environment["SLURM_JOB_ID"]
        memory = environment.get("SLURM_MEM_PER_NODE", "")
        here: dict[str, Any] = {
            "restart_count": int(environment.get("SLURM_RESTART_COUNT") or 0),
            "local": False,
            "number": number,
            "node": environment.get("SLURMD_NODENAME"),
            "cluster": environment.get("SLURM_CLUSTER_NAME"),
            "mem_mb": int(memory) if memory.isdigit() else None,
        }
        # An element that bears the array's number is found among its siblings; those that wait bear it too
        for job in list_jobs(job_id=number) or []:
            if job.number == number and job.state != "PENDING":
                return cls(job.job_id, submitted=job.submitted, script=job.command, **here)
        # A job that an element of an array has submitted inherits its variables: these say it for sure only here
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        return cls(f"{array}_{task}" if task and number == array else number, **here)

    @property
    def owner(self) -> Owner:
        """This process, as the one that this start has begun."""
        return Owner.this_process(
            job_id=self.job_id,
            job_number=self.number,
            job_submitted=self.submitted,
            job_script=self.script,
            node=self.node,
            cluster=self.cluster,
            mem_mb=self.mem_mb,
            restart_count=self.restart_count,
        )

    def is_of(self, job_id: str | None) -> bool:
        """Whether it is a start of this job, which an earlier version may have called by its number."""
        return job_id is not None and job_id in (self.job_id, self.number)
