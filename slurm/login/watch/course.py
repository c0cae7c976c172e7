"""How a run has gone so far, from its log: read thinly where that is long, then what is added to it."""

import os
from collections import deque
from contextlib import suppress
from math import isfinite
from typing import Any, BinaryIO

from job.log.reader import end_of_lines, parse
from job.log.series import Series
from job.log.thinned import thinned_records
from job.log.words import TOLD, news
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir

CURVES = ("reconstruction_loss", "discriminator_loss", "generator_loss", "d_prior", "d_code")
_NEWS = 8
_EVALUATIONS = 32


class Course:
    """What of a log counts: `curves` and the `distance` from the prior, the newest `step` record, and what has happened.

    `step` is {} and `lattice`, a path below the run directory, None as long as there is none; `evaluations` holds the last
    of them with their null band, by step; `news` are time and words, `verdict` is that on saturation, None before the
    first, and `reason` why.
    """

    def __init__(self, run_dir: RunDir, tail_bytes: int = 2**18, num_blocks: int = 60) -> None:
        self._run_dir = run_dir
        self._thin = (tail_bytes, num_blocks)
        self._file: int | None = None
        self._forget()

    def _forget(self) -> None:
        self.curves = {name: Series() for name in CURVES}
        self.distance = Series()
        self.step: dict[str, Any] = {}
        self.evaluations: deque[tuple[int, float, float]] = deque(maxlen=_EVALUATIONS)
        self.news: deque[tuple[str, str]] = deque(maxlen=_NEWS)
        self.lattice: str | None = None
        self.verdict: str | None = None
        self.reason = ""
        self._segment = 0
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        """Take what has been written since the last time, and return it; nothing of the first. Raises OSError."""
        path = self._run_dir.events_file
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            found = os.fstat(file.fileno())
            if self._file == found.st_ino and 0 <= found.st_size - self._position <= self._thin[0]:
                return self._go_on(file)
        # It is the first time, or another file has taken its place, or more has come than one would wait for.
        is_new = self._file is None and found.st_size == 0
        self._forget()
        self._file = found.st_ino
        if not is_new:
            self._position = end_of_lines(path)
            for record in thinned_records(path, self._position, *self._thin):
                self._take(record)
        return []

    def _go_on(self, file: BinaryIO) -> list[dict[str, Any]]:
        file.seek(self._position)
        taken = []
        for line in file:
            if not line.endswith(b"\n"):
                break  # it is being written
            self._position += len(line)
            if (record := parse(line)) is not None:
                self._take(record)
                taken.append(record)
        return taken

    def _take(self, record: dict[str, Any]) -> None:
        event, step = record["event"], record["step"]
        if record["segment"] > self._segment:
            self._begin_segment(record)
        elif record["segment"] < self._segment:
            return  # a writer that was taken over
        if event == "step" and _are_numbers(record, TOLD):
            self._cut(step - 1)  # only where the segment's beginning was not seen, or the log is out of order
            self.step = record
            for name, curve in self.curves.items():
                curve.add(step, record[name])
        elif event == "evaluation" and _are_numbers(record, ("energy_distance", "energy_distance_q99")):
            self.evaluations.append((step, record["energy_distance"], record["energy_distance_q99"]))
            self.distance.add(step, record["energy_distance"])
        elif event == "lattice" and isinstance(record.get("file"), str):
            self.lattice = record["file"]
        elif (words := news(record)) is not None:
            self.news.append((record["time"], words))
            if event == "saturation":
                self.verdict, self.reason = str(record.get("verdict")), str(record.get("reason"))

    def _begin_segment(self, record: dict[str, Any]) -> None:
        """What lower segments did beyond the step from which this one went on does not count."""
        self._segment = record["segment"]
        from_step = record.get("from_step")
        with suppress(OSError):  # then the first step that is done again tells
            if (
                from_step is None
                and self._segment > 1
                and (claim := read_segment(self._run_dir, self._segment)) is not None
            ):
                from_step = claim.from_step
        if isinstance(from_step, int):
            self._cut(from_step)

    def _cut(self, step: int) -> None:
        if self.step and self.step["step"] > step:
            self.step = {}
            for curve in self.curves.values():
                curve.cut(step)
        if self.evaluations and self.evaluations[-1][0] > step:
            self.distance.cut(step)
        while self.evaluations and self.evaluations[-1][0] > step:
            self.evaluations.pop()


def _are_numbers(record: dict[str, Any], names: tuple[str, ...]) -> bool:
    values = [record.get(name) for name in names]
    return all(isinstance(value, int | float) and isfinite(value) for value in values)
