"""A record of a log at a step, by bisection: of a log of any length a few pages are read.

Along the file (segment, step) rises, but for evaluations and the verdicts they change, which come up to half a window late.
The bisection passes over these; so may it be a little off where a killed writer left a line out of order: the search for the
record itself goes from there in both directions until it knows.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

from job.log.reader import parse

_BLOCK_BYTES = 2**13
_LATE = (b'"event":"evaluation"', b'"event":"saturation"')

Key = tuple[int, int]  # segment and step
_Bound = tuple[int, float]
FromStep = Callable[[int], int | None]


def last_record(
    path: Path, event: str, up_to: float, from_step: FromStep, within: float = inf
) -> dict[str, Any] | None:
    """The last record of an event that counts and whose step is at most `up_to`, None if there is none; raises OSError.

    `from_step` answers from which step a segment went on, None where that is not known: what lower segments did beyond it does
    not count. One that is not `within` so many steps before the last record up to there is not looked for: of an event that
    is not in the log the whole log would be read.
    """
    try:
        file = path.open("rb", buffering=_BLOCK_BYTES)
    except FileNotFoundError:
        return None
    with file:
        size = file.seek(0, os.SEEK_END)
        # Of two, since the last may be the line that a writer was in the midst of when it was taken over.
        newest = max((record["segment"] for record in islice(_records(_lines_back(file, size)), 2)), default=0)
        least: float | None = None
        for segment in range(newest, 0, -1):
            began_at = from_step(segment) if segment > 1 else 0
            if began_at is None or began_at < up_to:
                found, last_step = _last_of_segment(file, size, event, (segment, up_to), least, within)
                if found is not None:
                    return found
                least = last_step - within if least is None and last_step is not None else least
            if least is not None and began_at is not None and began_at < least:
                return None
            up_to = up_to if began_at is None else min(up_to, began_at)
    return None


def _last_of_segment(
    file: BinaryIO, size: int, event: str, key: _Bound, least: float | None, within: float
) -> tuple[dict[str, Any] | None, int | None]:
    """The last record of an event that a segment wrote up to a step, none below `least`; and the last step up to there.

    Where `least` is None that last step says it: so much less than it.
    """
    middle = _bisect(file, size, key)
    found = _last_ahead(_records(_lines_from(file, middle)), event, key, within)
    if found is not None:
        return found, found["step"]
    last_step = None
    for record in _records(_lines_back(file, middle)):
        if record["segment"] < key[0]:
            break
        if (record["segment"], record["step"]) > key:
            continue
        if record["event"] == event:
            return record, record["step"]
        if last_step is None:
            last_step = record["step"]
            least = last_step - within if least is None else least
        if least is not None and record["step"] < least:
            break
    return None, last_step


def _last_ahead(records: Iterator[dict[str, Any]], event: str, key: _Bound, within: float) -> dict[str, Any] | None:
    """The last of an event up to a key, of records that come in order but for late ones: `within` so many steps."""
    found = None
    for record in records:
        is_sought = record["event"] == event
        if (record["segment"], record["step"]) > (key if is_sought else (key[0], key[1] + within)):
            break
        if is_sought and record["segment"] == key[0]:
            found = record
    return found


def _bisect(file: BinaryIO, size: int, key: _Bound) -> int:
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


def _records(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    return (record for line in lines if (record := parse(line)) is not None)


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
