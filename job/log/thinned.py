"""A log of any length in little time: the whole of its end, and of what comes before some blocks, evenly spread."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from job.log.reader import parse

_BLOCK_BYTES = 2**13


def thinned_records(path: Path, end: int, tail_bytes: int, num_blocks: int) -> Iterator[dict[str, Any]]:
    """Records in the log's order up to `end`, where a line ends: all within `tail_bytes` of it, and those of some blocks before.

    Raises OSError. What counts of them is for the caller to say: a block may lie in a part that was done again.
    """
    start = max(0, end - tail_bytes)
    num_blocks = min(num_blocks, start // _BLOCK_BYTES)
    places = [start * number // num_blocks for number in range(num_blocks)]
    with path.open("rb") as file:
        for place, size in [*((place, _BLOCK_BYTES) for place in places), (start, end - start)]:
            file.seek(place)
            # Of what begins within the file the first line may have begun before, and the last of a block ends behind it.
            lines = file.read(size).split(b"\n")[1 if place else 0 : -1]
            yield from (record for line in lines if (record := parse(line)) is not None)
