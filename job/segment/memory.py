"""How much main memory a run is to be given after it was killed for using more."""

from job.config.allocation import Allocation, megabytes
from job.rundir.claim import Segment, newest_claim, read_segment
from job.rundir.directory import RunDir

GROWTH = 1.5


def raised_memory_mb(run_dir: RunDir, allocation: Allocation) -> int | None:
    """What the next start is to ask for, in MiB, where that is more than AAE_SLURM_MEM; None where it is not.

    Half more than what the last segment died of, or what it was raised to already; never more than AAE_SLURM_MAX_MEM.
    """
    last = read_segment(run_dir, newest_claim(run_dir))
    if allocation.max_mem is None or allocation.mem is None or last is None or last.owner.mem_mb is None:
        return None
    wanted = int(last.owner.mem_mb * GROWTH) if was_killed_for_memory(last) else last.owner.mem_mb
    wanted = min(wanted, megabytes(allocation.max_mem))
    return wanted if wanted > megabytes(allocation.mem) else None


def was_killed_for_memory(segment: Segment) -> bool:
    """Whether the kernel ended it; an exception for want of memory, a GPU's say, is another matter."""
    return segment.cause == "out_of_memory" and segment.failed_at is None
