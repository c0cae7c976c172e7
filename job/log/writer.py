"""events.jsonl: strict JSON, one record a line, one write a line, append-only over all segments."""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from job.log.events import EVENTS
from job.log.reader import end_of_lines
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.rundir.small_file import exists
from job.rundir.status import now


class EventLog:
    """Writes the records of one segment, through the outbox that keeps what the disk refuses."""

    def __init__(self, run_dir: RunDir, segment: int, outbox: Outbox) -> None:
        run_dir.fence()
        _cut_torn_line(run_dir.events_file)
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


def _cut_torn_line(path: Path) -> None:
    """Remove a last line that a killed writer left without its newline."""
    end = end_of_lines(path)
    if exists(path) and end < path.stat().st_size:
        os.truncate(path, end)
