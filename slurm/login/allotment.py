"""What a finished run has used of what it asked for, and what the next one may ask for instead."""

import contextlib
import math
from datetime import datetime

from job.commandline import duration
from job.config.allocation import Allocation, megabytes
from job.rundir.status import Status

ROOM = 1.2  # times the most memory that was held: what a like run is given
TIME_ROOM = 1.5  # times the time that a start took
WORTH_SAVING = 0.75  # of what was asked: less than this in its place is worth a word
TIGHT = 0.9  # of what was asked: more than this was close


def advice(status: Status, allocation: Allocation) -> list[str]:
    """A sentence for memory and one for time, each only where the next run should ask for something else."""
    if status.state != "finished":
        return []
    return [sentence for sentence in (_memory(status, allocation), _time(status, allocation)) if sentence is not None]


def _memory(status: Status, allocation: Allocation) -> str | None:
    if allocation.mem is None or status.peak_memory_bytes is None:
        return None
    asked_mb: int | None = None
    with contextlib.suppress(ValueError):  # what sbatch alone understands
        asked_mb = megabytes(allocation.mem)
    if not asked_mb:  # 0 is all of the node's
        return None
    used_mb = status.peak_memory_bytes / 2**20
    enough_mb = _rounded_up_mb(used_mb * ROOM)
    told = f"used {used_mb:,.0f} of {asked_mb:,} MiB of memory: AAE_SLURM_MEM={enough_mb}M"
    if enough_mb <= WORTH_SAVING * asked_mb:
        return f"{told} is enough for a run like it, and may start sooner"
    return f"{told} is safer for a run like it" if used_mb > TIGHT * asked_mb else None


def _rounded_up_mb(memory_mb: float) -> int:
    step = 256 if memory_mb <= 2048 else 1024
    return math.ceil(memory_mb / step) * step


def _time(status: Status, allocation: Allocation) -> str | None:
    """Only of a run that has needed one start: of several each has used all of its time."""
    if status.started_at is None or status.segment != 1:
        return None
    took = datetime.fromisoformat(status.updated_at) - datetime.fromisoformat(status.started_at)
    took_s, asked_s = took.total_seconds(), allocation.time_min * 60
    enough_min = _rounded_up_min((took_s * TIME_ROOM + allocation.signal_delay_s) / 60)
    if took_s <= 0 or enough_min * 60 > WORTH_SAVING * asked_s:
        return None
    limit = f"{enough_min // 60:02d}:{enough_min % 60:02d}:00"
    return (
        f"took {duration(took_s)} of the {duration(asked_s)} that it asked for: AAE_SLURM_TIME={limit} is enough for a run "
        "like it, and may start sooner"
    )


def _rounded_up_min(minutes: float) -> int:
    step = 5 if minutes <= 60 else 30
    return math.ceil(minutes / step) * step
