"""What a finished run has used of what it asked for, and what a run like it may ask for instead."""

import contextlib
import math
from datetime import datetime

from job.commandline import duration
from job.config.allocation import Allocation, megabytes
from job.rundir.status import Status

ROOM = 1.2  # times the most memory that was held: what a run like it is given
TIME_ROOM = 1.5  # times the time that it took
WORTH_SAVING = 0.75  # of what was asked: less than this in its place is worth a word
TIGHT = 0.9  # of what was asked: more than this was close


def advice(status: Status, allocation: Allocation) -> str | None:
    """One sentence with the settings for the next run; None for a run that is not finished, or asked for about what it needs."""
    if status.state != "finished":
        return None
    found = [one for one in (_memory(status, allocation), _time(status, allocation)) if one is not None]
    if not found:
        return None
    used = " and ".join(used for used, _ in found)
    return f"it used {used}; for a run like it: {' '.join(setting for _, setting in found)}"


def _memory(status: Status, allocation: Allocation) -> tuple[str, str] | None:
    """What was used, and the setting that is enough, or safer."""
    asked_mb = 0  # all of the node's
    with contextlib.suppress(ValueError):  # what sbatch alone understands
        asked_mb = megabytes(allocation.mem or "0")
    if not asked_mb or status.peak_memory_bytes is None:
        return None
    used_mb = status.peak_memory_bytes / 2**20
    enough_mb = _rounded_up(used_mb * ROOM, 256 if used_mb * ROOM <= 2048 else 1024)
    if WORTH_SAVING * asked_mb < enough_mb and used_mb <= TIGHT * asked_mb:
        return None
    return f"{used_mb:,.0f} of {asked_mb:,} MiB of memory", f"AAE_SLURM_MEM={enough_mb}M"


def _time(status: Status, allocation: Allocation) -> tuple[str, str] | None:
    """As `_memory`; only of a run of one segment: of several each has used all of its time."""
    if status.started_at is None or status.segment != 1:
        return None
    took = datetime.fromisoformat(status.updated_at) - datetime.fromisoformat(status.started_at)
    took_s, asked_s = took.total_seconds(), allocation.time_min * 60
    needed_min = (max(took_s, 0) * TIME_ROOM + allocation.signal_delay_s) / 60
    enough_min = _rounded_up(needed_min, 5 if needed_min <= 60 else 30)
    if enough_min * 60 > WORTH_SAVING * asked_s:
        return None
    limit = f"{enough_min // 60:02d}:{enough_min % 60:02d}:00"
    return f"{duration(took_s)} of {duration(asked_s)}", f"AAE_SLURM_TIME={limit}"


def _rounded_up(number: float, step: int) -> int:
    return math.ceil(number / step) * step
