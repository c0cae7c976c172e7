"""events.jsonl: strict JSON, one record a line, one write a line, append-only over all segments."""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from job.events import EVENTS
from job.outbox import Outbox
from job.rundir import RunDir
from job.status import now


class EventLog:
    """Writes the records of one segment, through the outbox that keeps what the disk refuses."""

    def __init__(self, run_dir: RunDir, segment: int, outbox: Outbox) -> None:
        cut_torn_line(run_dir.events_file)
        self._log: _Recorder = structlog.wrap_logger(
            outbox, processors=[_stamp, _check, _render], wrapper_class=_Recorder, segment=segment
        ).bind()

    def write(self, event: str, *, step: int, **fields: Any) -> bytes:
        """Append one record; returns its line. Raises on a field that the schema does not know."""
        return self._log.record(event, step=step, **fields)


class _Recorder(structlog.BoundLoggerBase):
    def record(self, event: str, **fields: Any) -> bytes:
        line: bytes = self._proxy_to_logger("append", event, **fields)
        return line


def _stamp(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {"time": now(), "event": record.pop("event"), "segment": record.pop("segment"), "step": record.pop("step")}
    return {**first, **record}


def _check(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    EVENTS[record["event"]].model_validate(record)
    return record


def _render(_: Any, __: str, record: MutableMapping[str, Any]) -> tuple[tuple[bytes], dict[str, Any]]:
    return (orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE),), {}


def cut_torn_line(path: Path) -> None:
    """Remove a last line that a killed writer left without its newline."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def read_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a log, without a torn last one; none if there is no log."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def last_records(path: Path, count: int) -> list[dict[str, Any]]:
    """The last whole records of a log, as many as there are up to `count`; reads only the file's end."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536))
        lines = file.read().splitlines(keepends=True)
    if size > 65536:
        del lines[0]  # it may have begun before
    return [orjson.loads(line) for line in lines if line.endswith(b"\n")][-count:]


def merged_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records that count, in order: those that a later segment did again are left out.

    A record is superseded if a higher segment resumed from a lower step. Reads the file twice and holds no more than
    the list of resumes. Raises orjson.JSONDecodeError on a line that is not JSON.
    """
    resumes = [
        (record["segment"], record["from_step"])
        for line in read_lines(path)
        if b'"event":"resumed"' in line
        for record in [orjson.loads(line)]
    ]
    # From the last segment backwards: the lowest step from which any segment after this one went on.
    kept_up_to: dict[int, int] = {}
    lowest: int | None = None
    for segment, from_step in sorted(resumes, reverse=True):
        lowest = from_step if lowest is None else min(lowest, from_step)
        kept_up_to[segment] = lowest
    resumed_segments = sorted(kept_up_to)
    for line in read_lines(path):
        record = orjson.loads(line)
        later = next((s for s in resumed_segments if s > record["segment"]), None)
        if later is None or record["step"] <= kept_up_to[later]:
            yield record
