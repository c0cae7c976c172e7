"""Which clusters to ask for a run's jobs, where several stand behind one login node."""

import os

from job.rundir.directory import RunDir
from job.rundir.status import read_status
from slurm.scheduler.queue import Job, list_jobs


def shell_cluster() -> str | None:
    """The cluster that this shell means, None for the default one or where it names several."""
    named = os.environ.get("AAE_SLURM_CLUSTER") or os.environ.get("SLURM_CLUSTERS") or "none"
    return None if named == "none" or "," in named else named


def clusters_of(run_dir: RunDir) -> set[str | None]:
    """Where jobs of a run may be: on the cluster that it was sent to, or, if that was the default one, the shell's as well."""
    status = read_status(run_dir)
    return {status.cluster} if status is not None and status.cluster else {None, shell_cluster()}


class Queues:
    """What squeue says of this user's jobs, asked once a cluster."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._jobs: dict[str | None, list[Job] | None] = {}

    def of(self, *clusters: str | None) -> list[Job] | None:
        """All jobs on some clusters; None if one of these does not answer."""
        for cluster in clusters:
            if cluster not in self._jobs:
                self._jobs[cluster] = list_jobs(self._timeout_s, cluster=cluster)
        answers = [self._jobs[cluster] for cluster in clusters]
        return None if None in answers else [job for jobs in answers for job in jobs or []]

    def of_run(self, run_dir: RunDir) -> list[Job] | None:
        """All jobs where a run's may be; None if there is no answer."""
        return self.of(*clusters_of(run_dir))
