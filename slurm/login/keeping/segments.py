"""The segments of a run: where each ran, from when to when, why it ended, what that cost, and the wait before it."""

import csv
import io
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Any

from job.rundir.claim import read_segment
from job.rundir.directory import RunDir


@dataclass
class Stretch:
    """One segment, by its records and its claim. What it lost is known when the next has `resumed`; None is unknown.

    `started` and `ended` are the times of its first and its last record, `ended` None while it goes on; `last_step` is the step it
    came to. `steps_lost` and `seconds_lost` are what of it was done again, `wait_s` the seconds between the one before and it.
    """

    segment: int
    node: str | None = None
    job_id: str | None = None
    device: str | None = None
    started: str | None = None
    ended: str | None = None
    cause: str | None = None
    from_step: int | None = None
    last_step: int | None = None
    steps_lost: int | None = None
    seconds_lost: float | None = None
    wait_s: float | None = None


class Segments:
    """Gathers the segments out of all records of a log, superseded ones too."""

    def __init__(self) -> None:
        self._found: dict[int, Stretch] = {}
        self._ended: dict[int, str] = {}  # how, in the words of the next
        self._failed: dict[int, str] = {}  # why, in a word more telling than the claim's

    def take(self, record: dict[str, Any]) -> None:
        """Take the next record."""
        number, time = record["segment"], record["time"]
        one = self._found.setdefault(number, Stretch(number, started=time, ended=time))
        one.ended = max(one.ended or time, time)
        one.last_step = max(one.last_step or 0, record["step"])
        event = record["event"]
        if event in ("started", "resumed"):
            one.node, one.job_id, one.device = (record.get(name) for name in ("host", "job_id", "device"))
            one.from_step = record.get("from_step", 0)
            if event == "resumed":
                self._ended.setdefault(number - 1, str(record.get("previous")).removeprefix("was "))
                # The steps that are done again are those of the last segment that did any: one may have died before.
                if (before := self._found.get(max((n for n in self._found if n < number), default=0))) is not None:
                    before.steps_lost, before.seconds_lost = record.get("steps_lost"), record.get("seconds_lost")
        elif event == "stopped":
            one.cause = record.get("reason")
        elif event == "failed":
            self._failed[number] = str(record.get("reason"))
        elif event == "finished":
            one.cause = "finished"

    def all(self, run_dir: RunDir, newest: int, *, goes_on: bool) -> list[Stretch]:
        """The segments in order up to at least `newest`, with what only their claims tell; raises OSError."""
        newest = max([*self._found, newest])
        before = None
        stretches = []
        for number in range(1, newest + 1):
            one = self._found.get(number) or Stretch(number)
            claim = read_segment(run_dir, number)
            if claim is not None:
                one.node = claim.owner.node or claim.owner.host
                one.job_id = claim.owner.job_id
                one.cause = claim.cause or one.cause
                one.from_step = claim.from_step if claim.from_step is not None else one.from_step
            one.cause = self._failed.get(number, one.cause or self._ended.get(number))
            if number < newest:
                one.steps_lost, one.seconds_lost = one.steps_lost or 0, one.seconds_lost or 0.0
            elif goes_on:
                one.ended, one.cause = None, "running"
            if before is not None and before.ended and one.started:
                one.wait_s = max(0.0, round(_seconds(one.started) - _seconds(before.ended), 1))
            before = one if one.ended else before
            stretches.append(one)
        return stretches


def segments_csv(stretches: list[Stretch]) -> bytes:
    """A row each, with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Stretch)])
    writer.writerows(map(astuple, stretches))
    return text.getvalue().encode(errors="surrogateescape")


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
