"""How long a run will take: its training, the segments that its time limit cuts it into, and the waits between them."""

import math
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from job.config.allocation import Allocation
from job.rundir.status import Status

START_UP_S = 4.0  # from the job's start to its first step, measured on CPUs; a run that has started tells its own
EARLY_S = 15.0  # Slurm looks at time limits every 30 s, so its signal comes that much too early in the mean
REQUEUE_S = 121.0  # cred_expire of slurm.conf by default, and a second: Slurm starts no requeued job earlier


@dataclass(frozen=True)
class Forecast:
    """The formula's terms, in seconds: training at a constant pace, in segments of `segment_s` with waits between them.

        segments = 1 + ceil((train_s - first_segment_s) / segment_s),  0 where nothing is left
        total_s  = train_s + start_up_s * segments + wait_s * (segments - 1)

    `step_ms` is the pace, `steps` what is left; `first_segment_s` is what the present segment can still train, `segment_s`
    what each later one can: its time limit less the signal's delay, EARLY_S and the start; both None without a time limit. Of a
    segment that trains already no start is counted. `total_s` holds no wait before the first start: nobody knows the queue.
    """

    steps: int
    step_ms: float
    train_s: float
    first_segment_s: float | None
    segment_s: float | None
    start_up_s: float
    wait_s: float
    segments: int
    total_s: float

    def as_json(self) -> dict[str, Any]:
        """All terms."""
        return asdict(self)


def forecast(
    steps: int,
    step_ms: float,
    allocation: Allocation | None,
    *,
    start_up_s: float = START_UP_S,
    wait_s: float = REQUEUE_S,
    left_s: float | None = None,
) -> Forecast:
    """What is ahead of a run with so many steps left; `allocation` is None where no time limit ends a segment.

    `left_s` is what a segment that trains now still has of its allocation, None where none trains.
    """
    train_s = steps * step_ms / 1000
    segment_s = first_s = None
    if allocation is not None:
        segment_s = max(allocation.time_min * 60.0 - allocation.signal_delay_s - EARLY_S - start_up_s, 1.0)
        first_s = segment_s if left_s is None else max(left_s - allocation.signal_delay_s - EARLY_S, 0.0)
    more = 0 if segment_s is None or first_s is None else max(0, math.ceil((train_s - first_s) / segment_s))
    segments = more + 1 if steps > 0 else 0
    starts = segments if left_s is None else more
    total_s = train_s + starts * start_up_s + more * wait_s
    return Forecast(steps, step_ms, train_s, first_s, segment_s, start_up_s, wait_s, segments, total_s)


def forecast_of(status: Status, allocation: Allocation | None) -> Forecast | None:
    """What is ahead of a run by what its status.json tells, from now on; None where that does not tell its pace.

    `allocation` is None for a run without Slurm. Waits are as those met so far, in the median.
    """
    if status.step_ms is None or status.total_steps <= 0:
        return None
    left_s = None
    if status.state == "running" and status.limit_at is not None:
        left_s = max(0.0, datetime.fromisoformat(status.limit_at).timestamp() - time.time())
    elif status.state == "running":
        left_s, allocation = 0.0, None
    return forecast(
        status.total_steps - status.step,
        status.step_ms,
        allocation,
        start_up_s=status.start_up_s if status.start_up_s is not None else START_UP_S,
        wait_s=statistics.median(status.waits_s) if status.waits_s else REQUEUE_S,
        left_s=left_s,
    )
