"""A plot as inline SVG: curves over steps with reference lines, a band and marks; told in words to whoever does not see it.

Colours are classes (c0, c1, ...) of the page's style; a dash pattern beside each tells lines apart without them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 392, 34, 204
_DASHES = ("", "5 2", "1.5 2", "7 2 1.5 2", "3 3", "9 3", "2 1", "6 2 2 2")
_ROW = 15  # of the legend
_PER_CHARACTER = 5.4  # about the width of one in a label

Point = tuple[float, float]


@dataclass
class Plot:
    """What is to be drawn; `name` is unique on the page. It reaches `last_step` at least.

    `is_logarithmic` is of the values; what is below `floor` is drawn there.
    """

    name: str
    title: str
    unit: str
    is_logarithmic: bool = False
    floor: float = -math.inf
    last_step: float = 0.0
    _curves: list[tuple[list[Point], str, int, str]] = field(default_factory=list)
    _levels: list[tuple[float, str]] = field(default_factory=list)
    _band: tuple[float, str] | None = None
    _marks: list[tuple[float, str, str]] = field(default_factory=list)

    def curve(self, points: Iterable[Point], label: str, number: int, kind: str = "") -> None:
        """Add a curve of a colour and dash by number; `kind` is one more class of the style. One without a label has no legend."""
        found = [(step, max(value, self.floor)) for step, value in points]
        if found:
            self._curves.append((found, label, number, kind))

    def level(self, value: float, label: str) -> None:
        """Add a reference line at a value."""
        self._levels.append((value, label))

    def band(self, up_to: float, label: str) -> None:
        """Add a band from the bottom up to a value."""
        self._band = (up_to, label)

    def mark(self, step: float, kind: str, letter: str = "") -> None:
        """Add a line across at a step, with a letter at its top where there is room."""
        self._marks.append((step, kind, letter))

    def svg(self) -> Markup:
        """The whole element."""
        legend, below = self._legend() if self._curves else ([], 0)
        parts = [self._empty()] if not self._curves else self._drawn()
        parts = [*legend, Markup('<g transform="translate(0 {})">{}</g>').format(below, Markup("").join(parts))]
        return figure(self.name, self.title, self._words(), WIDTH, HEIGHT + below, parts)

    def _empty(self) -> Markup:
        return text(WIDTH / 2, HEIGHT / 2, "nothing logged yet", "middle")

    def _drawn(self) -> list[Markup]:
        self._scale()
        parts = [*self._axes()]
        if self._band is not None:
            top = self._y(self._band[0])
            parts.append(rect(_LEFT, top, _RIGHT - _LEFT, _BOTTOM - top, "band"))
            parts.append(text(_LEFT + 4, _BOTTOM - 4, self._band[1], "start", "small"))
        free_from = -math.inf
        for step, kind, letter in sorted(self._marks):
            x = self._x(step)
            parts.append(line(x, _TOP, x, _BOTTOM, f"mark {kind}"))
            if letter and x >= free_from:
                parts.append(text(x, _TOP - 3, letter, "middle", f"letter {kind}"))
                free_from = x + 10
        for value, _ in self._levels:
            parts.append(line(_LEFT, self._y(value), _RIGHT, self._y(value), "level"))
        for points, _, number, kind in self._curves:
            path = " ".join(f"{self._x(step):.1f},{self._y(value):.1f}" for step, value in points)
            if len(points) == 1:  # a line of no length is not seen
                path += f" {self._x(points[0][0]) + 2:.1f},{self._y(points[0][1]):.1f}"
            parts.append(
                Markup('<polyline class="line c{} {}" {}points="{}"/>').format(number % 10, kind, _dash(number), path)
            )
        return parts

    def _scale(self) -> None:
        steps = [step for points, *_ in self._curves for step, _ in points]
        values = [value for points, *_ in self._curves for _, value in points] + [v for v, _ in self._levels]
        self._first, self._last = 0.0, max([*steps, self.last_step]) or 1.0
        if self.is_logarithmic:
            values += [self._band[0]] if self._band is not None else []
            low, high = self.floor, max(max(values), 10 * self.floor)
            self._low, self._high = math.log10(low), math.log10(high) + 0.05
        else:
            low, high = min(values), max(values)
            margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
            self._low, self._high = low - margin, high + margin

    def _x(self, step: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (step - self._first) / (self._last - self._first)

    def _y(self, value: float) -> float:
        value = math.log10(max(value, self.floor)) if self.is_logarithmic else value
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self._low) / (self._high - self._low)

    def _axes(self) -> Iterable[Markup]:
        if self.is_logarithmic:
            values = [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]
        else:
            values = ticks(self._low, self._high)
        for value in values:
            y = self._y(value)
            yield line(_LEFT, y, _RIGHT, y, "grid")
            yield text(_LEFT - 4, y + 3.5, short(value), "end", "small")
        for step in ticks(self._first, self._last, 4):
            yield line(self._x(step), _BOTTOM, self._x(step), _BOTTOM + 3, "axis")
            anchor = "end" if step == self._last else "middle"
            yield text(self._x(step), _BOTTOM + 14, short(step), anchor, "small")
        yield line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")
        yield text((_LEFT + _RIGHT) / 2, HEIGHT - 4, "optimiser steps", "middle", "small")

    def _legend(self) -> tuple[list[Markup], int]:
        """What each line is, in as many rows as that takes; and by how much all else lies lower for those after the first."""
        parts, x, y = [], 4.0, 0
        named = [(label, Markup('class="line c{}" {}').format(n % 10, _dash(n))) for _, label, n, _ in self._curves]
        named += [(label, Markup('class="level"')) for _, label in self._levels]
        for label, look in named:
            if label:
                width = 22 + _PER_CHARACTER * len(label)
                x, y = (4.0, y + _ROW) if x > 4 and x + width > WIDTH else (x, y)
                parts += [Markup('<path {} d="M{:.0f} {}h18"/>').format(look, x, y + 9)]
                parts += [text(x + 22, y + 12.5, label, "start", "small")]
                x += width + 12
        return parts, y

    def _words(self) -> str:
        if not self._curves:
            return "Nothing logged yet."
        told = []
        for points, label, *_ in self._curves:
            if label:
                (first, begin), (last, end) = points[0], points[-1]
                low, high = min(value for _, value in points), max(value for _, value in points)
                told.append(
                    f"{label}: {begin:.4g} at step {first:,.0f}, {end:.4g} at step {last:,.0f}, between {low:.4g} and {high:.4g}"
                )
        told += [f"reference {value:.4g}, {label}" for value, label in self._levels]
        told += [f"band up to {self._band[0]:.4g}, {self._band[1]}"] if self._band is not None else []
        return f"{self.unit}, over optimiser steps. " + "; ".join(told) + "."


def _dash(number: int) -> Markup:
    pattern = _DASHES[number % len(_DASHES)]
    return Markup('stroke-dasharray="{}" ').format(pattern) if pattern else Markup("")


def figure(name: str, title: str, words: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """An SVG element that a screen reader takes for one picture, told by its title and words."""
    return Markup(
        '<svg role="img" viewBox="0 0 {:.0f} {:.0f}" aria-labelledby="{}-title {}-desc">'
        '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>{}</svg>'
    ).format(width, height, name, name, name, title, name, words, Markup("").join(parts))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return Markup('<path class="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(kind, x1, y1, x2, y2)


def rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle."""
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, max(0, width), max(0, height)
    )


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> Markup:
    """A piece of text."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(words)
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two others, about so many."""
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number on an axis: 12,000, 1.5 M, 1e+12, 0.05, 1e-4."""
    if 1e6 <= abs(value) < 1e9:
        return f"{value / 1e6:g} M"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"1e{math.log10(value):.0f}" if 0 < value < 0.001 else f"{value:.4g}"
