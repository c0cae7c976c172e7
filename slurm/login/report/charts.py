"""The pictures of a run's report: its curves, its codes over the prior, its segments over time."""

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from job.log.course import Course
from slurm.login.keeping.segments import Stretch
from slurm.login.report.svg import WIDTH, Plot, figure, line, rect, short, text, ticks

MAX_BUCKETS = 200  # of a curve in a page: what a screen shows
MAX_CODES = 2000
FLOOR = 1e-4  # of the energy distance, which by chance may be below 0
LETTERS = {
    "saturated": "S",
    "false_saturation": "F",
    "discriminator_winning": "W",
    "collapsed": "C",
    "not_yet": "N",
}
_SIZE = 400  # of the codes' picture
_PER_SECOND = ((1, "s"), (60, "min"), (3600, "h"), (86400, "days"))


def curves_of(course: Course) -> list[tuple[str, Markup]]:
    """The plots of how training went by title, with segment borders and verdicts."""
    plots = [
        Plot("reconstruction", "Reconstruction", "Binary cross entropy a pixel, nats"),
        Plot("discriminator", "Discriminator loss", "Nats"),
        Plot("generator", "Generator loss", "Nats"),
        Plot("outputs", "The discriminator's outputs", "Mean probability"),
        Plot("distance", "Distance of the codes from the prior", "Energy distance, prior's std", True, FLOOR),
    ]
    for plot in plots:
        plot.last_step = course.last_step
    reconstruction, discriminator, generator, outputs, distance = plots
    _add(reconstruction, course, "reconstruction_loss", "training", 1)
    _add(reconstruction, course, "reconstruction_bce", "held out", 0)
    _add(discriminator, course, "discriminator_loss", "training", 0)
    discriminator.level(2 * math.log(2), "1.386: cannot tell")
    _add(generator, course, "generator_loss", "training", 0)
    generator.level(math.log(2), "0.693: fools it")
    _add(outputs, course, "d_prior", "D(prior)", 0)
    _add(outputs, course, "d_code", "D(code)", 1)
    _add(outputs, course, "d_accuracy", "accuracy", 2)
    outputs.level(0.5, "0.5: cannot tell")
    _add(distance, course, "energy_distance", "held out", 0)
    null = course.curves["energy_distance_q99"].last
    if null is not None:
        distance.band(null[1], "null band: 99 % of equal samples")
    for plot in plots:
        for step, _ in course.resumes:
            plot.mark(step, "border")
        for step, verdict in course.verdicts:
            plot.mark(step, f"v-{verdict}" if verdict in LETTERS else "", LETTERS.get(verdict, "?"))
    return [(f"{plot.title}: {plot.unit[0].lower()}{plot.unit[1:]}", plot.svg()) for plot in plots]


def _add(plot: Plot, course: Course, field: str, label: str, number: int) -> None:
    plot.curve(course.curves[field].thinned(MAX_BUCKETS).points(), label, number)


@dataclass(frozen=True)
class Codes:
    """Held-out codes as a picture, and in words what it shows."""

    svg: Markup
    words: str


def codes_of(path: Path, prior_std: float, latent_dim: int) -> Codes:
    """The codes of codes.npz over the prior's circles; raises OSError or ValueError if that is not what it holds."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            codes = np.asarray(arrays["codes"], np.float64)
            labels = np.asarray(arrays["labels"]) if "labels" in arrays.files else np.zeros(len(codes), np.int64)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"it holds no codes: {error}") from error
    if codes.ndim != 2 or codes.shape[1] < 2 or labels.shape != codes.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"codes {codes.shape} and labels {labels.shape} do not fit each other")
    shown = np.unique(np.linspace(0, max(0, len(codes) - 1), min(len(codes), MAX_CODES)).astype(int))
    points, classes = codes[shown, :2], labels[shown]
    reach = prior_std * min(6.0, max(3.3, float(np.nanmax(np.abs(points), initial=0)) / prior_std * 1.05))
    inside = (np.abs(points) <= reach).all(axis=1)  # a NaN is not

    def place(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", sign: int) -> str:
        return " ".join(f"{v:.0f}" for v in _SIZE / 2 + sign * values / reach * _SIZE / 2)

    parts = [
        line(0, _SIZE / 2, _SIZE, _SIZE / 2, "grid"),
        line(_SIZE / 2, 0, _SIZE / 2, _SIZE, "grid"),
    ]
    for label in np.unique(classes):
        of = inside & (classes == label)
        parts += [
            Markup('<text class="code f{}" x="{}" y="{}">{}</text>').format(
                int(label) % 10, place(points[of, 0], 1), place(points[of, 1], -1), str(int(label) % 10) * int(of.sum())
            )
        ] * bool(of.any())
    for number in (1, 2, 3):
        radius = number * prior_std / reach * _SIZE / 2
        circle = Markup('<circle class="ring" cx="{0}" cy="{0}" r="{1:.1f}"/>').format(_SIZE // 2, radius)
        parts += [circle, text(_SIZE / 2 + 3, _SIZE / 2 - radius - 3, f"{number} sd", "start", "ring-name")]
    outside = int((~inside).sum())
    told = [f"{len(shown):,} of {len(codes):,} codes of held-out images, each shown as the number of its class"]
    told += [f"the first two of {latent_dim} dimensions"] if latent_dim > 2 else []
    told += ["the circles are 1, 2 and 3 standard deviations of the prior"]
    told += [f"{outside:,} lie further out or are no number"] if outside else []
    words = "; ".join(told) + "."
    return Codes(figure("codes", "Codes of held-out images over the prior", words, _SIZE, _SIZE, parts), words)


def timeline_of(stretches: Sequence[Stretch], until: str) -> Markup | None:
    """The segments over the clock, what was done again hatched; None where no time is known. `until` ends one that goes on."""
    timed = [(one, _seconds(one.started), _seconds(one.ended or until)) for one in stretches if one.started]
    if not timed:
        return None
    # A node's clock may be behind that of the node before.
    begin, end = min(started for _, started, _ in timed), max(ended for _, _, ended in timed)
    if end <= begin:
        end = begin + 1
    left, right, top, height = 8, WIDTH - 8, 20, 26
    scale = (right - left) / (end - begin)
    unit_s, unit = next((u for u in reversed(_PER_SECOND) if end - begin >= 2 * u[0]), _PER_SECOND[0])
    hatch = Markup(
        '<defs><pattern id="lost" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<path class="hatch" d="M0 0V5"/></pattern></defs>'
    )
    parts = [hatch, line(left, top + height / 2, right, top + height / 2, "level")]
    free_from = -math.inf
    for one, started, ended in timed:
        x, width = left + (started - begin) * scale, max(1.0, (ended - started) * scale)
        parts.append(rect(x, top, width, height, f"bar bar{one.segment % 2}"))
        if one.seconds_lost:
            lost = min(width, max(1.5, one.seconds_lost * scale))
            parts.append(
                Markup('<rect class="lost" fill="url(#lost)" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                    x + width - lost, top, lost, height
                )
            )
        middle, half = min(max(x + width / 2, 12), right - 6), 3 * len(str(one.segment))
        if middle - half >= free_from:
            parts.append(text(middle, top - 5, str(one.segment), "middle", "small"))
            free_from = middle + half + 6
    for tick in ticks(0, (end - begin) / unit_s, 5):
        x = left + tick * unit_s * scale
        anchor = "start" if tick == 0 else "end" if x > right - 20 else "middle"
        parts.append(line(x, top + height + 3, x, top + height + 7, "axis"))
        parts.append(text(x, top + height + 18, f"{short(tick)} {unit}", anchor, "small"))
    words = f"{len(timed)} segments within {(end - begin) / unit_s:.1f} {unit}; the table below says the same."
    return figure("timeline", "Segments over the clock", words, WIDTH, top + height + 24, parts)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
