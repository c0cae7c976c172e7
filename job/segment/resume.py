"""What a later segment finds out about the one before it: how it ended, what it cost, and what is different now."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from job.config.settings import Settings
from job.log.reader import Damage, last_records, read_lines
from job.machine import source_digest, versions
from job.rundir.claim import Segment, read_segment
from job.rundir.directory import RunDir
from job.rundir.lease import Lease
from job.rundir.liveness import Owner
from job.rundir.outbox import Outbox
from job.rundir.patience import at_start

_WORDS = {"source_digest": "the SHA-256 of the installed code"}
_ADVICE = {"hardware": "; AAE_SLURM_CONSTRAINT keeps a run on nodes of one kind"}


@dataclass(frozen=True)
class Past:
    """How the last segment ended, in words, and how many of its steps and seconds are known to be lost.

    `damage` says which lines at the log's end could not be read, None for none.
    """

    previous: str
    steps_lost: int = 0
    seconds_lost: float = 0.0
    damage: str | None = None

    def told(self) -> dict[str, Any]:
        """As the `resumed` record tells it."""
        return {"previous": self.previous, "steps_lost": self.steps_lost, "seconds_lost": self.seconds_lost}


def known_step(lease: Lease) -> int:
    """The newest step of which a checkpoint is known to have been written, 0 for none."""
    told = lease.before.checkpoint_step if lease.before is not None else None
    gone_on_from = lease.previous.from_step if lease.previous is not None else None
    return max(told or 0, gone_on_from or 0)


def look_back(run_dir: RunDir, lease: Lease, state: dict[str, Any] | None) -> Past:
    """Compare the log and the last status with the checkpoint's state that is gone on from, None for none.

    What a killed segment did after its last record and heartbeat is not known, so what is lost may be a little more.
    """
    before, number = lease.before, lease.claim.number - 1
    how = _how_it_ended(lease.previous, lease.claim.segment.owner)
    damage = Damage()
    records = last_records(run_dir.events_file, 3, damage)
    words = damage.words(run_dir.path)
    if not records:
        return Past(how, damage=words)
    from_step = state["step"] if state else 0
    # An evaluation, and the verdict that it changes, are of an earlier step than records before them.
    done = max(record["step"] for record in records if record["segment"] == records[-1]["segment"])
    steps_lost = max(done, before.step if before else 0) - from_step
    if steps_lost <= 0:
        return Past(how, damage=words)
    lived_until = _seconds(records[-1]["time"])
    if before is not None and before.state == "running":
        lived_until = max(lived_until, _seconds(before.updated_at))
    # Done again is what the last segment to train did since it began, or since a checkpoint that it made.
    since = max(_last_began_at(run_dir, number), state["saved_at"] if state else 0.0)
    return Past(how, steps_lost, max(0.0, round(lived_until - since, 1)), words)


def write_carried(
    run_dir: RunDir, outbox: Outbox, pending: list[tuple[str | None, bytes]], tell: Callable[[str], None]
) -> None:
    """Write what the last checkpoint had to carry, unless it reached the disk after all: (path, or None for a record; content)."""
    lines = {content for path, content in pending if path is None}
    log = run_dir.events_file
    present = at_start(lambda: {line for line in read_lines(log) if line in lines}, run_dir, tell) if lines else set()
    for path, content in pending:
        if path is not None:
            outbox.put(path, content)
        elif content not in present:
            outbox.append(content)


def _last_began_at(run_dir: RunDir, number: int) -> float:
    """When the last segment up to a number began to train, in seconds since the epoch."""
    while (segment := read_segment(run_dir, number)) is not None:
        if segment.began_at is not None:
            return segment.began_at
        number -= 1
    return time.time()  # it is not known, and nothing is claimed


def _how_it_ended(previous: Segment | None, now: Owner) -> str:
    if previous is None:
        return "left no record"
    if previous.cause in ("exception", "out_of_memory", "hung", "no_gpu", "storage", "hopeless", "refused"):
        return f"failed ({previous.cause})"
    if previous.cause == "elsewhere":
        return "was that of a directory that this one was copied or moved from"
    if previous.cause in ("finished", "saturated"):
        return previous.cause
    if previous.cause not in (None, "killed"):
        return f"stopped ({previous.cause})"
    if previous.cause is None and previous.owner.is_earlier_start(now):
        return "was ended by Slurm, which started the job again by itself"
    return "was killed"


def changed_settings(state: dict[str, Any], settings: Settings) -> dict[str, list[Any]]:
    """The settings that differ from those of the checkpoint: {name: [old, new]}."""
    before, now = state["settings"], settings.model_dump(mode="json")
    return {name: [before[name], now[name]] for name in sorted(before) if before[name] != now.get(name)}


def inexactness(
    state: dict[str, Any], settings: Settings, device: str, hardware: str, *, cuda_graph: bool
) -> list[tuple[str, str]]:
    """What differs from where the checkpoint was made so that the same bytes cannot be promised: (reason, message).

    `device` and `hardware` are what computes now, `cuda_graph` tells whether steps are recorded.
    """
    now = {
        "device": device,
        "hardware": hardware,
        "num_threads": settings.num_threads,
        "cuda_graph": cuda_graph,
        "versions": versions(),
        "source_digest": source_digest(),
    }
    if state["device"] != device:
        del now["hardware"]
    # What an older checkpoint does not tell is not known to differ
    earlier = {"cuda_graph": state["device"] == "cuda" and state["settings"].get("cuda_graph") is True}
    before = {**now, **earlier, **state}
    return [
        (
            f"{name.removesuffix('_digest')}_changed",
            f"{_WORDS.get(name, name)} was {before[name]} up to step {state['step']}, now it is {value}: training goes on, "
            f"but from here on not bit for bit as without the change{_ADVICE.get(name, '')}",
        )
        for name, value in now.items()
        if before[name] != value
    ]


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
