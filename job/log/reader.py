"""Reading events.jsonl: whole lines, the last ones, and those that count. Needs no more than a JSON parser.

What is no record, a page that a power cut took say, is stepped over: nothing that reads the log depends on a single line.
"""

import os
import shlex
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

_BLOCK_BYTES, _TAIL_BYTES = 2**20, 2**16

Told = Callable[[bytes], None]  # called with each line that is no record


def _ignore(_: bytes) -> None: ...


class Damage:
    """Counts the lines of a log that are no records, for a reader to say so once."""

    def __init__(self) -> None:
        self.num_lines = 0

    def __call__(self, _: bytes) -> None:
        self.num_lines += 1

    def words(self, run: Path) -> str | None:
        """What to say of it, None if there is none."""
        if self.num_lines == 0:
            return None
        lines = "a line" if self.num_lines == 1 else f"{self.num_lines} lines"
        verify = f"aae-job verify {shlex.quote(str(run))}"
        return f"{lines} of {run / 'events.jsonl'} cannot be read and left out; `{verify}` names each"


def read_lines(path: Path, event: str | None = None, num_bytes: int | None = None) -> Iterator[bytes]:
    """The whole lines of a log, without a torn last one, whatever they hold; none if there is no log.

    `event` leaves out all other records, `num_bytes` ends the log there. Blocks without the event are not split into lines.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        left = sys.maxsize if num_bytes is None else num_bytes
        while left > 0 and (block := file.read(min(_BLOCK_BYTES, left))):
            block += file.readline(left - len(block))
            left -= len(block)
            if is_of(block, event):
                yield from (line + b"\n" for line in block.split(b"\n")[:-1] if is_of(line, event))
            if not block.endswith(b"\n"):
                return  # it is being written: what follows would begin in the middle of a record


def end_of_lines(path: Path) -> int:
    """Where the last whole line of a log ends, in bytes: what follows is being written, or torn. 0 if there is no log."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, None if it holds none."""
    try:
        record = orjson.loads(line)
        datetime.fromisoformat(record["time"])
        is_record = isinstance(record["event"], str) and record["segment"] >= 1 and record["step"] >= 0
    except (ValueError, TypeError, LookupError):
        return None
    return record if is_record else None


def last_records(path: Path, count: int, damage: Told = _ignore) -> list[dict[str, Any]]:
    """The last whole records of a log, as many as there are up to `count`; reads only the file's end."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        *lines, _ = file.read().split(b"\n")
    if size > _TAIL_BYTES:
        del lines[:1]  # it may have begun before
    return list(_records(lines, damage))[-count:]


def _records(lines: "Iterator[bytes] | list[bytes]", damage: Told) -> Iterator[dict[str, Any]]:
    for line in lines:
        record = parse(line)
        if record is None:
            damage(line)
        else:
            yield record


def is_of(line: bytes, event: str | None) -> bool:
    """Whether a line is a record of an event, without parsing it: quotes within a text are escaped. None is any event."""
    return event is None or b'"event":"%b"' % event.encode() in line


def merged_records(path: Path, event: str | None = None, damage: Told = _ignore) -> Iterator[dict[str, Any]]:
    """The records that count, in order, or those of one event."""
    return (record for _, record in merged_lines(path, event, damage=damage))


def merged_lines(
    path: Path, event: str | None = None, num_bytes: int | None = None, damage: Told = _ignore
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines that count, in order, and the records in them: those that a later segment did again are left out."""
    return ((line, record) for line, record, counts in judged_lines(path, event, num_bytes, damage) if counts)


def judged_lines(
    path: Path, event: str | None = None, num_bytes: int | None = None, damage: Told = _ignore
) -> Iterator[tuple[bytes, dict[str, Any], bool]]:
    """All lines in order, the records in them, and whether they count.

    A record is superseded if a higher segment resumed from a lower step. `event` and
    `num_bytes` as in `read_lines`. Reads the file twice and holds no more than the list of resumes.
    """
    # From the last segment backwards: the lowest step from which this segment or any after it went on.
    kept_up_to: dict[int, int] = {}
    lowest = sys.maxsize
    resumes = _records(read_lines(path, "resumed", num_bytes), _ignore)
    known = (record for record in resumes if isinstance(record.get("from_step"), int))
    for resumed in sorted(known, key=itemgetter("segment"), reverse=True):
        lowest = kept_up_to[resumed["segment"]] = min(lowest, resumed["from_step"])
    segments = sorted(kept_up_to)
    for line in read_lines(path, event, num_bytes):
        if (record := parse(line)) is None:
            damage(line)
            continue
        later = bisect_right(segments, record["segment"])
        yield line, record, later == len(segments) or record["step"] <= kept_up_to[segments[later]]
