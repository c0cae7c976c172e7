"""How often a run is started again by itself: an allowance that segments which come to nothing use up."""

from job.rundir.claim import Cause, Segment, read_segment
from job.rundir.directory import RunDir
from job.segment.memory import was_killed_for_memory

# Ends that use up the allowance if no new checkpoint came of the segment. Preemptions, requeues by an operator and failures
# of a node are nobody's fault and never count.
_FRUITLESS: frozenset[Cause] = frozenset({"time_limit", "exception", "out_of_memory", "killed", "hung", "storage"})

KILLS_BY_MEMORY = 2  # with the same memory once more is no accident


def used_up(run_dir: RunDir, number: int, last: Segment, saved_step: int, allowance: int) -> str | None:
    """Why segment `number`, as it ended, is the last that is started by itself; None if it is not.

    Only segments of the same job count: whoever submits a run again, or starts it by hand, starts the count anew.
    """
    fruitless = repeated = 0
    count_fruitless, count_repeated = True, last.failed_at is not None
    end = saved_step
    segment: Segment | None = last
    by_memory = was_killed_for_memory(last)
    while segment is not None and segment.owner.is_of_job(last.owner):
        if segment.from_step is not None:
            count_fruitless &= end <= segment.from_step
            end = segment.from_step
        if segment.failed_at is not None:
            count_repeated &= segment.failed_at == last.failed_at
            repeated += count_repeated
        with_other_memory = was_killed_for_memory(segment) and segment.owner.mem_mb != last.owner.mem_mb
        fruitless += count_fruitless and segment.cause in _FRUITLESS and not with_other_memory
        if not (count_fruitless or count_repeated):
            break
        number -= 1
        segment = read_segment(run_dir, number)
    again = "so it is not started again by itself; find out why, then submit the run again"
    if repeated >= allowance:
        return f"{repeated} segments in a row have ended in an exception at step {last.failed_at}, {again}"
    if by_memory and fruitless >= KILLS_BY_MEMORY:
        return f"{fruitless} segments in a row have been killed with the same memory, {again}"
    if fruitless >= allowance:
        return f"{fruitless} segments in a row have ended without a checkpoint beyond step {saved_step}, {again}"
    return None
