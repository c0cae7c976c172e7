"""Ending jobs."""

from slurm.scheduler.ask import ask
from slurm.scheduler.queue import Job

SCANCEL_TIMEOUT_S = 30.0


def end_jobs(jobs: list[Job]) -> str | None:
    """Have Slurm end jobs; returns why it does not."""
    refusals = []
    for cluster in {job.cluster for job in jobs}:
        ids = [job.job_id for job in jobs if job.cluster == cluster]
        refusals.append(ask(["scancel", *ids], SCANCEL_TIMEOUT_S, cluster=cluster).refusal)
    return "; ".join(filter(None, refusals)) or None
