"""Curves and bars of characters, a line high."""

from collections.abc import Iterable
from dataclasses import dataclass

Point = tuple[int, float]


@dataclass(frozen=True)
class Ink:
    """The characters to draw with: `levels` from low to high, what a bar is `filled` with and what is left of it."""

    levels: str
    filled: str
    empty: str
    more: str  # stands for what there is no room for


BLOCKS = Ink("▁▂▃▄▅▆▇█", "█", "░", "…")
ASCII = Ink("_.:-=+*#", "#", ".", "~")


def bar(share: float, width: int, ink: Ink) -> str:
    """A bar that is filled by a share of 1."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return ink.filled * filled + ink.empty * (width - filled)


def sparkline(points: Iterable[Point], width: int, ink: Ink, reference: float | None = None) -> str:
    """A curve, evenly over its steps: the mean of each column. `reference` is within the range that is shown.

    The highest twentieth is cut off at the top, and the lowest at the bottom: else what a run begins with flattens the rest.
    """
    known = list(points)
    if not known or width < 1:
        return ""
    columns = _columns(known, min(width, len(known)))
    ranked = sorted(columns)
    cut = len(ranked) // 20
    shown = [ranked[cut], ranked[-1 - cut], *([reference] if reference is not None else [])]
    low, span = min(shown), max(shown) - min(shown)
    top = len(ink.levels) - 1
    levels = [round(top * min(max((value - low) / span, 0.0), 1.0)) if span > 0 else 0 for value in columns]
    return "".join(ink.levels[level] for level in levels)


def _columns(points: list[Point], width: int) -> list[float]:
    """The mean value in each of so many equal spans of steps, that of the one before where it has none."""
    first, span = points[0][0], points[-1][0] - points[0][0] + 1
    values: list[list[float]] = [[] for _ in range(width)]
    for step, value in points:
        values[(step - first) * width // span].append(value)
    means: list[float] = []
    for found in values:
        means.append(sum(found) / len(found) if found else means[-1])
    return means
