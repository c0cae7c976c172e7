"""How fast a run's segments step, and how long they wait for each other: what status.json keeps for forecasts."""

from datetime import datetime
from typing import Any

from job.rundir.claim import Segment
from job.rundir.liveness import Owner
from job.rundir.status import Status

MIN_STEPS = 100  # of a segment, for its speed to be one: the first steps are slower
KEPT_WAITS = 20


def waits_until(now_s: float, owner: Owner, previous: Segment | None, before: Status | None) -> list[float]:
    """The waits between segments up to that of `owner`, which claims the run now, in seconds.

    Only those count after which Slurm has started the same job again: else a person was waited for.
    """
    waits = before.waits_s if before is not None else []
    if before is None or previous is None or not previous.owner.is_earlier_start(owner):
        return waits
    wait_s = now_s - datetime.fromisoformat(before.updated_at).timestamp()
    return [*waits, round(max(0.0, wait_s), 1)][-KEPT_WAITS:]


def paces(before: Status | None, step_ms: float | None, num_steps: int) -> dict[str, Any]:
    """The keys of status.json that tell the speed; `step_ms` is that of this segment, which has made `num_steps` so far."""
    earlier = [before.step_ms_fastest, before.step_ms_slowest] if before is not None else []
    known = [pace for pace in (*earlier, step_ms if num_steps >= MIN_STEPS else None) if pace is not None]
    told = {"step_ms": round(step_ms, 3)} if step_ms is not None else {}
    return {**told, "step_ms_fastest": min(known, default=None), "step_ms_slowest": max(known, default=None)}
