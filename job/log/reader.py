"""Reading events.jsonl: whole lines, the last ones, and those that count. Needs no more than a JSON parser."""

import os
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

# How a record begins, as the log writes it.
_HEAD = re.compile(rb'\{"time":"[^"]*","event":"\w+","segment":(\d+),"step":(\d+)[,}]')
_BLOCK_BYTES = 2**20


def read_lines(path: Path, event: str | None = None, num_bytes: int | None = None) -> Iterator[bytes]:
    """The whole lines of a log, without a torn last one; none if there is no log.

    `event` leaves out all other records, `num_bytes` ends the log there. Blocks without the event are not split into lines.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        left = sys.maxsize if num_bytes is None else num_bytes
        while left > 0 and (block := file.read(min(_BLOCK_BYTES, left))):
            block += file.readline(left - len(block))
            left -= len(block)
            if is_of(block, event):
                yield from (
                    line for line in block.splitlines(keepends=True) if is_of(line, event) and line.endswith(b"\n")
                )
            if not block.endswith(b"\n"):
                return  # it is being written: what follows would begin in the middle of a record


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


def is_of(line: bytes, event: str | None) -> bool:
    """Whether a line is a record of an event, without parsing it: quotes within a text are escaped. None is any event."""
    return event is None or b'"event":"%b"' % event.encode() in line


def merged_records(path: Path, event: str | None = None) -> Iterator[dict[str, Any]]:
    """The records that count, in order, or those of one event; raises as `merged_lines`."""
    return map(orjson.loads, merged_lines(path, event))


def merged_lines(path: Path, event: str | None = None, num_bytes: int | None = None) -> Iterator[bytes]:
    """The lines of the records that count, in order: those that a later segment did again are left out.

    A record is superseded if a higher segment resumed from a lower step. `event` and
    `num_bytes` as in `read_lines`. Reads the file twice and holds no more than the list of resumes.
    Raises orjson.JSONDecodeError on a line that is not JSON.
    """
    resumes = map(orjson.loads, read_lines(path, "resumed", num_bytes))
    # From the last segment backwards: the lowest step from which this segment or any after it went on.
    kept_up_to: dict[int, int] = {}
    lowest = sys.maxsize
    for record in sorted(resumes, key=itemgetter("segment"), reverse=True):
        lowest = kept_up_to[record["segment"]] = min(lowest, record["from_step"])
    if not kept_up_to:
        yield from read_lines(path, event, num_bytes)
        return
    segments = sorted(kept_up_to)
    for line in read_lines(path, event, num_bytes):
        head = _HEAD.match(line)
        segment, step = map(int, head.groups()) if head else itemgetter("segment", "step")(orjson.loads(line))
        later = bisect_right(segments, segment)
        if later == len(segments) or step <= kept_up_to[segments[later]]:
            yield line
