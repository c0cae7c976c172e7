"""Ending jobs."""

from slurm.scheduler.ask import ask

SCANCEL_TIMEOUT_S = 30.0


def end_jobs(job_ids: list[str]) -> str | None:
    """Have Slurm end jobs; returns why it does not."""
    return ask(["scancel", *job_ids], SCANCEL_TIMEOUT_S).refusal
