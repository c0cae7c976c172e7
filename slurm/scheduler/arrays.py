"""Job arrays: how long this cluster lets them be, and how many of one run at once."""

import re

from slurm.scheduler.ask import ask

ASK_TIMEOUT_S = 10.0
MOST_BY_DEFAULT = 1001  # slurm.conf(5): MaxArraySize


def most_elements(cluster: str | None) -> int:
    """How many elements an array may have: MaxArraySize, which is above the greatest index, and max_array_tasks where that is less.

    Slurm's own default where it gives no answer; 0 where the cluster has no arrays.
    """
    answer = ask(["scontrol", "show", "config"], ASK_TIMEOUT_S, cluster=cluster)
    limits = re.findall(r"(?:^MaxArraySize\s*=\s*|\bmax_array_tasks=)(\d+)", answer.text, re.MULTILINE)
    return min(map(int, limits), default=MOST_BY_DEFAULT)


def set_throttle(array: str, parallel: int, cluster: str | None) -> str | None:
    """Let so many elements of an array run at once, 0 for all that the cluster lets; returns why not."""
    command = ["scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={parallel}"]
    return ask(command, ASK_TIMEOUT_S, cluster=cluster).refusal


def set_after(array: str, before: str, cluster: str | None) -> None:
    """Let what waits of an array start only after another has ended; what runs of it runs on."""
    ask(["scontrol", "update", f"JobId={array}", f"Dependency=afterany:{before}"], ASK_TIMEOUT_S, cluster=cluster)
