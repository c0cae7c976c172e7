"""Has a job started again, away from nodes on which its run does not get on."""

import re
from dataclasses import dataclass

from job.rundir.claim import Segment, newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.status import Status, read_status
from slurm.node.start import Start
from slurm.scheduler.queue import batch_script
from slurm.scheduler.requeue import exclude_nodes, other_node_exists, requeue

_DIED = ("killed", "hung")


@dataclass(frozen=True)
class Restart:
    """A restart to come: which nodes it is to avoid, which its script excludes, and what is to be said of it.

    `is_changed` tells that the job's excluded nodes have to be set anew; `elsewhere` that the node of the last segment is avoided.
    """

    avoided: list[str]
    own: str
    is_changed: bool
    elsewhere: bool
    words: str

    def ask(self, job_id: str) -> str | None:
        """Ask Slurm for it, which soon ends this process; returns why it does not start the job again."""
        refusal = requeue(job_id)
        if refusal is None and self.is_changed:
            exclude_nodes(job_id, ",".join(filter(None, [self.own, *self.avoided])))
        return refusal


def plan_restart(run_dir: RunDir, start: Start) -> Restart:
    """Decide by how the last segments ended whether the node of the last one is to be avoided."""
    status = read_status(run_dir)
    number = newest_claim(run_dir)
    last = read_segment(run_dir, number)
    known = status.avoided_nodes if status is not None else []
    if status is None or last is None:
        return Restart(known, "", is_changed=False, elsewhere=False, words="")
    if _has_got_on(last, status):
        return Restart([], _own_exclusions(start) if known else "", bool(known), elsewhere=False, words="")
    node = last.owner.node
    if node is None or node in known or not _is_bad(last, read_segment(run_dir, number - 1)):
        return Restart(known, "", is_changed=False, elsewhere=False, words="")
    script = batch_script(start.job_id) or ""
    own, avoided = _own_exclusions(start, script), [*known, node]
    if not other_node_exists(script, ",".join(filter(None, [own, *avoided]))):
        words = f"node {node} would be avoided, but no other one of the request can be had"
        return Restart(known, own, is_changed=False, elsewhere=False, words=words)
    return Restart(avoided, own, is_changed=True, elsewhere=True, words=f"not on node {node}")


def _has_got_on(last: Segment, status: Status) -> bool:
    return last.from_step is not None and (status.checkpoint_step or 0) > last.from_step


def _is_bad(last: Segment, before: Segment | None) -> bool:
    """Whether the last segment's node had no GPU where one was given, or has killed the run twice in a row."""
    if last.cause == "no_gpu":
        return True
    twice = before is not None and before.cause in _DIED and before.owner.is_of_job(last.owner)
    return last.cause in _DIED and twice and before is not None and before.owner.node == last.owner.node


def _own_exclusions(start: Start, script: str | None = None) -> str:
    """The nodes that the batch script itself excludes."""
    script = script if script is not None else batch_script(start.job_id) or ""
    found = re.findall(r"^#SBATCH\s.*?(?:--exclude[= ]|-x ?)(\S+)", script, re.MULTILINE)
    return found[-1].strip("'\"") if found else ""
