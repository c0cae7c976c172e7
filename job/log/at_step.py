"""A record of a log at a step, by bisection: of a log of any length a few pages are read.

Along the file (segment, step) rises, but for evaluations and the verdicts they change, which come up to half a window late.
The bisection passes over these; so may it be a little off where a killed writer left a line out of order: the search for the
record itself goes from there in both directions until it knows.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from job.log.reader import is_of, parse

_BLOCK_BYTES = 2**13
_LATE = (b'"event":"evaluation"', b'"event":"saturation"')

Key = tuple[int, int]  # segment and step
FromStep = Callable[[int], int | None]


def last_record(path: Path, event: str, up_to: float, from_step: FromStep) -> dict[str, Any] | None:
    """The last record of an event that counts and whose step is at most `up_to`, None if there is none; raises OSError.

    `from_step` answers from which step a segment went on, None where that is not known: what lower segments did beyond it does
    not count. Of an event that is not in the log the whole log may be read.
    """
    try:
        file = path.open("rb", buffering=_BLOCK_BYTES)
    except FileNotFoundError:
        return None
    with file:
        size = file.seek(0, os.SEEK_END)
        # Of two, since the last may be the line that a writer was in the midst of when it was taken over.
        newest = max((record["segment"] for record in islice(_records(_lines_back(file, size)), 2)), default=0)
        for segment in range(newest, 0, -1):
            began_at = from_step(segment) if segment > 1 else 0
            if began_at is None or began_at < up_to:
                found = _last_of_segment(file, size, event, segment, up_to)
                if found is not None:
                    return found
            up_to = up_to if began_at is None else min(up_to, began_at)
    return None


def _last_of_segment(file: BinaryIO, size: int, event: str, segment: int, up_to: float) -> dict[str, Any] | None:
    """The last record of an event that a segment wrote up to a step."""
    middle = _bisect(file, size, (segment, up_to))
    found = None
    for record in _records(_lines_from(file, middle), event):
        if (record["segment"], record["step"]) > (segment, up_to):
            break
        if record["segment"] == segment:
            found = record
    if found is not None:
        return found
    for record in _records(_lines_back(file, middle), event):
        if record["segment"] < segment:
            return None
        if (record["segment"], record["step"]) <= (segment, up_to):
            return record
    return None


def _bisect(file: BinaryIO, size: int, key: tuple[int, float]) -> int:
    """Where a line begins after which, within a block or so, the records above a key begin."""
    low, high = 0, size
    middle = size - _BLOCK_BYTES  # first whether all of it is below, as for what is the last of all
    while high - low > _BLOCK_BYTES:
        end, found = _key_after(file, middle, high)
        if found is None or found > key:
            high = middle
        else:
            low = end
        middle = (low + high) // 2
    return low


def _key_after(file: BinaryIO, start: int, end: int) -> tuple[int, Key | None]:
    """The first key of a line that begins between two places, and where that line ends; None if there is none."""
    file.seek(start)
    position = start + len(file.readline())
    while position < end and (line := file.readline()):
        position += len(line)
        if not any(late in line for late in _LATE) and (record := parse(line)) is not None:
            return position, (record["segment"], record["step"])
    return position, None


def _records(lines: Iterator[bytes], event: str | None = None) -> Iterator[dict[str, Any]]:
    return (record for line in lines if is_of(line, event) and (record := parse(line)) is not None)


def _lines_from(file: BinaryIO, start: int) -> Iterator[bytes]:
    """The whole lines from a place where one begins."""
    file.seek(start)
    return (line for line in file if line.endswith(b"\n"))


def _lines_back(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines before a place where one begins, the last first."""
    beginning = b""  # of what has been read: the end of a line that may begin before
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        first, *lines = (file.read(end - start) + beginning).split(b"\n")
        yield from reversed(lines)
        beginning, end = first, start
    yield beginning
