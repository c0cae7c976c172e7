"""A log in little memory, however long it is: each curve as the least and the greatest value of each of its buckets."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

MAX_BUCKETS = 1000  # of a curve: more are not seen

_Point = tuple[int, float]


class Series:
    """A value over steps; no spike vanishes, however many steps a bucket holds. Grows no further than so many buckets."""

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self.last: _Point | None = None
        self._max_buckets = max_buckets
        self._steps_per_bucket = 1
        self._buckets: dict[int, tuple[_Point, _Point]] = {}  # the least and the greatest of each, by its number

    def add(self, step: int, value: Any) -> None:
        """Take one more value; what is no finite number is left out."""
        if not isinstance(value, int | float) or not isfinite(value):
            return
        point = self.last = (step, value)
        number = step // self._steps_per_bucket
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = (point, point)
            if len(self._buckets) > self._max_buckets:
                self._halve()
        elif value < bucket[0][1]:
            self._buckets[number] = (point, bucket[1])
        elif value > bucket[1][1]:
            self._buckets[number] = (bucket[0], point)

    def cut(self, step: int) -> None:
        """Forget what lies beyond a step: it is done again."""
        number = step // self._steps_per_bucket
        edge = [point for point in self._buckets.get(number, ()) if point[0] <= step]
        self._buckets = {n: bucket for n, bucket in self._buckets.items() if n < number}
        if edge:
            self._buckets[number] = (min(edge, key=_value), max(edge, key=_value))
        if self.last is not None and self.last[0] > step:
            self.last = max((point for bucket in self._buckets.values() for point in bucket), default=None)

    def _halve(self) -> None:
        while len(self._buckets) > self._max_buckets // 2:
            self._steps_per_bucket *= 2
            merged: dict[int, tuple[_Point, _Point]] = {}
            for number, (least, greatest) in self._buckets.items():
                other = merged.get(number // 2, (least, greatest))
                merged[number // 2] = (min(least, other[0], key=_value), max(greatest, other[1], key=_value))
            self._buckets = merged

    def points(self) -> Iterator[_Point]:
        """Step and value in rising order of steps; the last value among them."""
        found = {point for bucket in self._buckets.values() for point in bucket}
        return iter(sorted(found | ({self.last} if self.last is not None else set())))

    def thinned(self, max_buckets: int) -> "Series":
        """The same in fewer buckets."""
        thinned = Series(max_buckets)
        for step, value in self.points():
            thinned.add(step, value)
        return thinned


def _value(point: _Point) -> float:
    return point[1]


class Marks:
    """What happened at some steps, evenly thinned where that is often; `count` is of all, `last` is always there."""

    def __init__(self, most: int = 200) -> None:
        self.count = 0
        self.last: tuple[int, Any] | None = None
        self._most = most
        self._every = 1
        self._kept: list[tuple[int, Any]] = []

    def add(self, step: int, what: Any) -> None:
        """Take one more."""
        if self.count % self._every == 0:
            self._kept.append((step, what))
            if len(self._kept) > self._most:
                self._kept, self._every = self._kept[::2], 2 * self._every
        self.count += 1
        self.last = (step, what)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        yield from self._kept
        if self.last is not None and self.last not in self._kept:
            yield self.last
