"""How Slurm's commands are called: in an environment in which nothing of the user's bends what they answer."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

# What finds the cluster; all else of Slurm's variables filters, formats or redirects.
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER"})
# Of Slurm's messages those that are about the way to the controller, not about what was asked.
_AWAY = (
    "unable to contact",
    "timed out",
    "connect failure",
    "connection failure",
    "connection refused",
    "send failure",
    "receive failure",
    "zero bytes were transmitted",
    "authentication",
    "standby mode",
    "temporarily unavailable",
    "gave no answer",
)
_BENDING = ("SLURM_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SBATCH_", "SRUN_", "SALLOC_", "SINFO_", "SUBMITIT_")


@dataclass(frozen=True)
class Answer:
    """What a command printed, or in `refusal` why there is no answer: its own words, or that it is missing or hangs."""

    text: str
    refusal: str | None

    @property
    def is_away(self) -> bool:
        """Whether the scheduler gave no answer, so that it is worth while to ask again."""
        return self.refusal is not None and any(part in self.refusal.lower() for part in _AWAY)


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what bends Slurm's commands; times are told in seconds since the epoch."""
    kept = {name: value for name, value in environment.items() if name in _KEPT or not name.startswith(_BENDING)}
    return {**kept, "SLURM_TIME_FORMAT": "%s"}


def ask(
    command: list[str], timeout_s: float, text: str = "", cluster: str | None = None, *, also_stderr: bool = False
) -> Answer:
    """Call one of Slurm's commands, which may read a text, for a cluster, None for the default one; raises nothing.

    `also_stderr` is for those that answer there.
    """
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=clean_environment() | ({"SLURM_CLUSTERS": cluster} if cluster else {}),
            input=text,
        )
    except subprocess.TimeoutExpired:
        return Answer("", f"{command[0]} gave no answer within {timeout_s:.0f} s")
    except OSError as error:
        return Answer("", f"{command[0]} cannot be run here: {error}")
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        return Answer("", words or f"{command[0]} ended with exit code {done.returncode}")
    return Answer(done.stdout + done.stderr if also_stderr else done.stdout, None)
