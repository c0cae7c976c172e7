"""The lattices of a run over its training: as an animation, and side by side on one sheet."""

import io
import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES = 200  # of the animation: 20 s, and some 10 MB
MAX_PIXELS = 128_000_000  # of all its frames, each of which is a byte of memory until they are written
SHEET_SIDE = 5
_FRAME_MS, _LAST_MS = 100, 2000
_GAP, _LABEL = 8, 16  # pixels between the lattices of the sheet, and of the step below each


@dataclass(frozen=True)
class Film:
    """The animation as a GIF and the sheet as a PNG; `left_out` tells what is not in the animation, in words."""

    gif: bytes
    sheet: bytes
    left_out: str | None


def evenly(steps: Iterable[int], most: int) -> list[int]:
    """At most so many of the steps, in rising order: evenly in the logarithm, since most changes early, and the last."""
    steps = sorted(steps)
    if len(steps) <= most or most < 2:
        return steps[len(steps) - most :] if len(steps) > most else steps
    first, ratio = max(1, steps[0]), max(1, steps[-1]) / max(1, steps[0])

    def nearest(num_aims: int) -> list[int]:
        aims = (first * ratio ** (number / (num_aims - 1)) for number in range(num_aims))
        return sorted({_nearest(steps, aim) for aim in aims} | {steps[-1]})

    # Early on several aims meet the same step: so many aims as give just so many steps.
    low, high = most, 2 * most
    while len(nearest(high)) <= most:
        if high > 100 * most:  # the late ones lie too close together
            return nearest(high)
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(nearest(middle)) <= most else (low, middle)
    return nearest(low)


def _nearest(steps: list[int], aim: float) -> int:
    index = bisect_left(steps, aim)
    return min(steps[max(0, index - 1) : index + 1], key=lambda step: abs(step - aim))


def make_film(paths: dict[int, Path]) -> Film:
    """The film of the lattices at these steps; raises OSError or ValueError if none can be drawn."""
    newest = next((found for step in sorted(paths, reverse=True) if (found := _open(paths[step])) is not None), None)
    if newest is None:
        raise ValueError("no lattice can be drawn")
    size = newest.size
    chosen = evenly(list(paths), min(MAX_FRAMES, max(2, MAX_PIXELS // (size[0] * size[1]))))
    opened = {step: picture for step in chosen if (picture := _open(paths[step])) is not None}
    pictures = {step: picture for step, picture in opened.items() if picture.size == size}
    told = [
        (len(paths) - len(chosen), f"the others are {len(chosen)} evenly spaced in the logarithm of the step"),
        (len(chosen) - len(opened), "damaged"),
        (len(opened) - len(pictures), "of another size than the last"),
    ]
    left_out = ", ".join(
        f"{count:,} lattice{'s are' if count > 1 else ' is'} left out ({why})" for count, why in told if count
    )
    return Film(_gif(list(pictures.values())), _sheet(pictures), left_out or None)


def _open(path: Path) -> "Image | None":
    """A lattice as grey levels, None if it is damaged or gone."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("L")
    except (OSError, ValueError, SyntaxError):  # the last is Pillow's for a broken PNG
        return None


def _gif(pictures: "list[Image]") -> bytes:
    """256 greys are all that a lattice has: nothing is lost. Equal pictures in a row become one that stands longer."""
    first, *others = pictures
    file = io.BytesIO()
    durations = [_FRAME_MS] * len(others) + [_LAST_MS]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _sheet(pictures: "dict[int, Image]") -> bytes:
    """Lattices pixel by pixel as they are, row by row, with the step below each."""
    from PIL import Image, ImageDraw, ImageFont

    chosen = evenly(list(pictures), SHEET_SIDE**2)
    columns = min(SHEET_SIDE, len(chosen))
    width, height = pictures[chosen[-1]].size
    cell = (width + _GAP, height + _GAP + _LABEL)
    sheet = Image.new("L", (columns * cell[0] + _GAP, math.ceil(len(chosen) / columns) * cell[1] + _GAP), 255)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for number, step in enumerate(chosen):
        left, top = _GAP + number % columns * cell[0], _GAP + number // columns * cell[1]
        sheet.paste(pictures[step], (left, top))
        draw.text((left, top + height + 3), f"step {step:,}", fill=0, font=font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
