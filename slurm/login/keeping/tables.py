"""What a log tells, read once: metrics.csv, and along the way its course and its segments; evaluations.csv."""

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from job.log.course import Course
from job.log.events import EVALUATION_KEYS, EVENTS
from job.log.reader import Damage, judged_lines, merged_lines
from slurm.login.keeping.segments import Segments

STEP_KEYS = tuple(EVENTS["step"].model_fields)


class Reading:
    """A log up to a number of bytes, read by `write_metrics` and then `finish`, whether the disk takes the table or not."""

    def __init__(self, log: Path, num_bytes: int) -> None:
        self.course = Course()
        self.segments = Segments()
        self.damage = Damage()
        self._log, self._num_bytes = log, num_bytes
        self._rows = self._read()

    def _read(self) -> Iterator[list[Any]]:
        for _, record, counts in judged_lines(self._log, None, self._num_bytes, self.damage):
            self.segments.take(record)
            if counts:
                self.course.take(record)
                if record["event"] == "step":
                    yield [record.get(name) for name in STEP_KEYS]

    def write_metrics(self, file: BinaryIO) -> None:
        """A row for each `step` record that counts."""
        _write(file, STEP_KEYS, self._rows)

    def finish(self) -> None:
        """Read what is left."""
        deque(self._rows, maxlen=0)

    def write_evaluations(self, file: BinaryIO) -> None:
        """A row for each `evaluation` record that counts; lists as JSON."""
        records = (record for _, record in merged_lines(self._log, "evaluation", self._num_bytes))
        _write(file, EVALUATION_KEYS, ([_cell(record.get(name)) for name in EVALUATION_KEYS] for record in records))


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _write(file: BinaryIO, names: tuple[str, ...], rows: Iterable[list[Any]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=False)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
        text.flush()
    finally:
        text.detach()
