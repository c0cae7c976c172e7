"""What a later segment finds out about the one before it: how it ended, what it cost, and what is different now."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from job.eventlog import last_record, read_lines
from job.machine import versions
from job.rundir import RunDir
from job.settings import Settings
from job.status import Status


@dataclass(frozen=True)
class Past:
    """How the last segment ended, in words, and how many of its steps and seconds are known to be lost."""

    previous: str
    steps_lost: int
    seconds_lost: float


def look_back(run_dir: RunDir, before: Status | None, state: dict[str, Any] | None) -> Past:
    """Compare the log and the last status with the checkpoint's state that is gone on from, None for none.

    What a killed segment did after its last record and heartbeat is not known, so what is lost may be a little more.
    """
    last = last_record(run_dir.events_file)
    if last is None:
        return Past("left no record", 0, 0.0)
    previous = "was killed"
    if last["event"] in ("stopped", "finished", "failed"):
        previous = f"{last['event']} ({last['reason']})" if "reason" in last else last["event"]
    from_step = state["step"] if state else 0
    steps_lost = max(last["step"], before.step if before else 0) - from_step
    if steps_lost <= 0:
        return Past(previous, 0, 0.0)
    lived_until = _seconds(last["time"])
    if before is not None and before.state == "running":
        lived_until = max(lived_until, _seconds(before.updated_at))
    since = state["saved_at"] if state else _seconds(orjson.loads(next(read_lines(run_dir.events_file)))["time"])
    return Past(previous, steps_lost, max(0.0, round(lived_until - since, 1)))


def changed_settings(state: dict[str, Any], settings: Settings) -> dict[str, list[Any]]:
    """The settings that differ from those of the checkpoint: {name: [old, new]}."""
    before, now = state["settings"], settings.model_dump(mode="json")
    return {name: [before[name], now[name]] for name in sorted(before) if before[name] != now.get(name)}


def inexactness(state: dict[str, Any], settings: Settings, device: str) -> list[tuple[str, str]]:
    """What differs from where the checkpoint was made so that the same bytes cannot be promised: (reason, message)."""
    now = {"device": device, "num_threads": settings.num_threads, "versions": versions()}
    return [
        (
            f"{name}_changed",
            f"{name} was {state[name]} up to step {state['step']}, now it is {value}: training goes on, but from here on "
            "not bit for bit as without the change",
        )
        for name, value in now.items()
        if state[name] != value
    ]


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
