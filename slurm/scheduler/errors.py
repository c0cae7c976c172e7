"""What the scheduler may answer that is no success."""

from textwrap import indent

from job.errors import AaeError

# A part of sbatch's words, and what it likely means here.
_MEANINGS = {
    "invalid partition": "AAE_SLURM_PARTITION names no partition of this cluster; `sinfo -s` lists them",
    "invalid account": "AAE_SLURM_ACCOUNT is not one you may charge; `sacctmgr show assoc user=$USER` lists yours",
    "invalid qos": "AAE_SLURM_QOS is not one you may use",
    "time limit": "AAE_SLURM_TIME is longer than the partition allows (`sinfo -o '%P %l'`); a shorter one is no loss, "
    "the run goes on over as many segments as it needs",
    "generic resource": "this partition has no such GPUs: set AAE_SLURM_GPUS or AAE_SLURM_PARTITION; "
    "AAE_SLURM_GPUS=0 AAE_DEVICE=cpu trains without",
    "node configuration is not available": "no node has that many CPUs, GPUs or that much memory: lower "
    "AAE_SLURM_CPUS_PER_TASK, AAE_SLURM_GPUS or AAE_SLURM_MEM; AAE_SLURM_GPUS=0 AAE_DEVICE=cpu trains without a GPU",
    "unable to contact": "the scheduler does not answer; try again in a minute",
    "socket timed out": "the scheduler did not answer in time and may have taken the job all the same; "
    "type the same command again: it finds the job",
}


def meaning_of(words: str) -> str | None:
    """What a refusal of sbatch's likely means here, and what to change; None if that is not known."""
    return next((meaning for part, meaning in _MEANINGS.items() if part in words.lower()), None)


class SchedulerError(AaeError):
    """The scheduler refused, in its own words; `may_have_submitted` if it only failed to answer in time."""

    exit_code = 1

    def __init__(self, words: str) -> None:
        self.may_have_submitted = "timed out" in words.lower()
        meaning = meaning_of(words)
        told = indent(words.strip(), "  ")
        super().__init__(f"Slurm refused the job:\n{told}" + (f"\nlikely: {meaning}" if meaning else ""))


class NoAnswerError(AaeError):
    """The scheduler is away, or there is none."""

    exit_code = 1
