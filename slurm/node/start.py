"""Who has started this process: a job of Slurm's, or submitit's own executor on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """The job and how often it has been restarted; `local` is submitit's own executor."""

    job_id: str
    restart_count: int
    local: bool

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Start | None":
        """As the environment tells; None outside a job."""
        if "SUBMITIT_LOCAL_JOB_ID" in environment and environment.get("SUBMITIT_EXECUTOR") == "local":
            return cls(f"local-{environment['SUBMITIT_LOCAL_JOB_ID']}", 0, local=True)
        if "SLURM_JOB_ID" in environment:
            return cls(environment["SLURM_JOB_ID"], int(environment.get("SLURM_RESTART_COUNT") or 0), local=False)
        return None
