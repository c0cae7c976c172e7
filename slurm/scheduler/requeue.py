"""What a job asks of Slurm: to be started again, and on which nodes not."""

import time

from slurm.scheduler.ask import ask

REQUEUE_FOR_S = 300.0  # how long an absent controller is asked, while the allocation lasts
REQUEUE_WAIT_S = 5.0
REQUEUE_TIMEOUT_S = 60.0
TEST_TIMEOUT_S = 10.0
REQUEUE_REFUSALS = 3  # a refusal in words is asked again only so often


def requeue(job_id: str) -> str | None:
    """Ask Slurm to start this job again, which soon ends this process; returns why it does not, after several attempts."""
    deadline = time.monotonic() + REQUEUE_FOR_S
    refusals = 0
    while (words := (answer := ask(["scontrol", "requeue", job_id], REQUEUE_TIMEOUT_S)).refusal) is not None:
        if "cannot be run here" in words:
            return words
        refusals += not answer.is_away
        if refusals >= REQUEUE_REFUSALS or time.monotonic() > deadline:
            return words
        time.sleep(REQUEUE_WAIT_S)
    return None


def other_node_exists(script: str, excluded: str) -> bool:
    """Whether Slurm could start a batch script without the excluded nodes: on one that is up and has what is asked for."""
    return ask(["sbatch", "--test-only", f"--exclude={excluded}"], TEST_TIMEOUT_S, script).refusal is None


def exclude_nodes(job_id: str, excluded: str) -> None:
    """Keep a job that was just requeued off some nodes, '' for none; Slurm lets its user do so."""
    ask(["scontrol", "update", f"JobId={job_id}", f"ExcNodeList={excluded}"], TEST_TIMEOUT_S)


def comment_on(job_id: str, comment: str) -> None:
    """Leave a word with a job that was just requeued; Slurm lets its user do so."""
    ask(["scontrol", "update", f"JobId={job_id}", f"Comment={comment}"], TEST_TIMEOUT_S)


def give_memory(job_id: str, memory_mb: int) -> None:
    """Ask for so much memory on the node, in MiB, for a job that was just requeued; Slurm lets its user do so."""
    ask(["scontrol", "update", f"JobId={job_id}", f"MinMemoryNode={memory_mb}"], TEST_TIMEOUT_S)
