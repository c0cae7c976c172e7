"""Has a job started again, away from nodes on which its run does not get on."""

import re
from dataclasses import dataclass, replace

from job.config.allocation import Allocation
from job.config.settings_file import recorded_allocation
from job.rundir.claim import Segment, newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.status import Status, read_status
from job.segment.memory import raised_memory_mb
from slurm.node.start import Start
from slurm.scheduler.queue import batch_script, show_job
from slurm.scheduler.requeue import comment_on, exclude_nodes, give_memory, other_node_exists, requeue

_DIED = ("killed", "hung")


@dataclass(frozen=True)
class Restart:
    """A restart to come: which nodes it is to avoid, which its script excludes, and what is to be said of it.

    `is_changed` tells that the job's excluded nodes have to be set anew, `elsewhere` that the node of the last segment is avoided.
    `memory_mb` is what the job is to be given, None for as much as before.
    """

    avoided: list[str]
    own: str
    is_changed: bool
    elsewhere: bool
    words: str
    memory_mb: int | None = None
    comment: str | None = None

    def ask(self, job_id: str) -> str | None:
        """Ask Slurm for it, which soon ends this process; returns why it does not start the job again."""
        refusal = requeue(job_id)
        if refusal is None and self.is_changed:
            exclude_nodes(job_id, ",".join(filter(None, [self.own, *self.avoided])))
        if refusal is None and self.memory_mb is not None:
            give_memory(job_id, self.memory_mb)
        if refusal is None and self.comment is not None:
            comment_on(job_id, self.comment)
        return refusal


def restart_unseen(start: Start) -> str | None:
    """Have a job started again whose run directory cannot be seen from here, on another node if there is one.

    Slurm keeps count, in the job's comment: returns why it is not started again, at the latest after as many starts in a row as
    AAE_SLURM_MAX_STALLS is by default, since the run's own settings cannot be read.
    """
    job = show_job(start.job_id) or {}
    before = job.get("Comment", "")
    mine = re.search(r"aae:unseen:([\d,]+)", before)
    starts = [int(number) for number in mine[1].split(",")] if mine else []
    in_a_row = next(
        (back for back, number in enumerate(reversed(starts), 1) if number != start.restart_count - back), None
    )
    num_before = len(starts) if in_a_row is None else in_a_row - 1
    allowance = Allocation().max_stalls
    if num_before + 1 >= allowance:
        return f"{num_before + 1} starts in a row have not got at the run"
    told = f"aae:unseen:{','.join(map(str, [*starts, start.restart_count]))}"
    comment = before.replace(mine[0], told) if mine else told if before in ("", "(null)") else f"{before};{told}"
    script = batch_script(start.job_id) or ""
    listed = [name for name in job.get("ExcNodeList", "").split(",") if name not in ("", "(null)")]
    excluded = [*dict.fromkeys([*listed, *([start.node] if start.node else [])])]
    elsewhere = start.node is not None and other_node_exists(script, ",".join(excluded))
    restart = Restart(excluded, "", is_changed=elsewhere, elsewhere=elsewhere, words="", comment=comment)
    return restart.ask(start.job_id)


def plan_restart(run_dir: RunDir, start: Start) -> Restart:
    """Decide where, and with how much memory, the job is to be started again."""
    restart = _plan_nodes(run_dir, start)
    allocation = recorded_allocation(run_dir)
    memory_mb = raised_memory_mb(run_dir, allocation) if allocation is not None else None
    if start.mem_mb is None or memory_mb is None or memory_mb <= start.mem_mb:
        return restart
    words = f"with {memory_mb:,} MiB of memory instead of {start.mem_mb:,}"
    return replace(restart, memory_mb=memory_mb, words=", ".join(filter(None, [restart.words, words])))


def _plan_nodes(run_dir: RunDir, start: Start) -> Restart:
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
    """Whether the last segment's node had no GPU, could not get at the run, or has killed it twice in a row."""
    if last.cause in ("no_gpu", "storage"):
        return True
    twice = before is not None and before.cause in _DIED and before.owner.is_of_job(last.owner)
    return last.cause in _DIED and twice and before is not None and before.owner.node == last.owner.node


def _own_exclusions(start: Start, script: str | None = None) -> str:
    """The nodes that the batch script itself excludes."""
    script = script if script is not None else batch_script(start.job_id) or ""
    found = re.findall(r"^#SBATCH\s.*?(?:--exclude[= ]|-x ?)(\S+)", script, re.MULTILINE)
    return found[-1].strip("'\"") if found else ""
