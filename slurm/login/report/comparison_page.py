"""comparison.html and comparison.csv: runs side by side, seeds together."""

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from markupsafe import Markup

from job.errors import AaeError
from job.log.course import Course, read_course
from job.rundir.directory import RunDir
from job.rundir.status import now
from slurm.login.compare import columns_of, sentences, write_csv
from slurm.login.comparison import Comparison, compare
from slurm.login.facts import Facts, read_facts
from slurm.login.keeping.folder import UNFIT, unfit
from slurm.login.keeping.run import Collected, lattices_in
from slurm.login.report.charts import FLOOR, MAX_BUCKETS
from slurm.login.report.page import data_uri, made_by, render
from slurm.login.report.svg import Plot, Point
from slurm.login.report.verdict import WORDS

_PLOTS = (
    ("reconstruction_bce", "Reconstruction, held out", "Binary cross entropy a pixel, nats", None),
    ("energy_distance", "Distance of the codes from the prior", "Energy distance, prior's std", None),
    ("discriminator_loss", "Discriminator loss", "Nats", (1.386, "1.386: cannot tell")),
    (
        "d_accuracy",
        "The discriminator's accuracy",
        "Share of codes and prior samples that it tells right",
        (0.5, "0.5: cannot tell"),
    ),
)
MAX_COLOURED = 8  # rows that are told apart in the plots
MAX_PICTURES_BYTES = 3_400_000
_MARK = '<meta name="made-from" content="'


@dataclass(frozen=True)
class _Picture:
    """A run's lattice, and beside it what run it is of."""

    name: str
    words: str
    uri: str | None


def write_comparison(collected: Sequence[Collected], out: Path) -> tuple[str, list[str]]:
    """Write both files; returns what is said about them, and what could not be written."""
    page, table = out / "comparison.html", out / "comparison.csv"
    made_from = sha256(" ".join([made_by(), *(one.made_from for one in collected)]).encode()).hexdigest()
    before = _made_from(page)
    foreign = [path.name for path in (page, table) if before is None and os.path.lexists(path)]
    if foreign:
        return "", [f"{' and '.join(foreign)} in {out} no collect has put there; move it away"]
    if before == made_from and table.is_file():
        return f"comparison: unchanged\n  report   {page}\n", []
    facts, courses, problems = [], {}, []
    for one in collected:
        try:
            facts.append(read_facts(one.run_dir))
            courses[one.run_dir.path.name] = one.course or read_course(one.run_dir.events_file)
        except (OSError, AaeError, ValueError) as error:
            problems.append(f"{one.run_dir.path.name} is left out, it cannot be read: {error}")
    if not facts:
        return "", problems
    try:
        comparison = compare(facts)
        text = io.StringIO()
        write_csv(comparison, comparison.rows, text)
        RunDir(out).replace(
            page, _page(comparison, facts, courses, collected, made_from if not problems else "incomplete")
        )
        RunDir(out).replace(table, text.getvalue().encode(errors="backslashreplace"))
    except UNFIT as error:
        return "", [*problems, f"{page.name}: {unfit(error)}"]
    except (OSError, AaeError) as error:
        return "", [*problems, f"{page.name} cannot be made: {error}"]
    return f"comparison: written\n  report   {page}\n", problems


def _made_from(page: Path) -> str | None:
    """What the page there was made from, None if a collect has not made it."""
    try:
        with page.open("rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    found = re.search(re.escape(_MARK) + r"(\w+)\"", head)
    return found[1] if found else None


def _page(
    comparison: Comparison, facts: list[Facts], courses: dict[str, Course], collected: Sequence[Collected], made: str
) -> bytes:
    columns = columns_of(comparison)
    by_name = {run.name: run for run in facts}
    return render(
        "comparison.html",
        title=f"{len(facts)} runs compared",
        made_from=made,
        as_of=now(),
        num_runs=len(facts),
        head=["", *(column.name for column in columns)],
        rows=[
            [_letter(number), *(column.text(row) for column in columns)] for number, row in enumerate(comparison.rows)
        ],
        sentences=sentences(comparison),
        plots=[_plot(number, comparison, courses) for number in range(len(_PLOTS))],
        uncoloured=max(0, len(comparison.rows) - MAX_COLOURED),
        pictures=_pictures(comparison, collected),
        runs=[
            {
                "letter": _letter(number),
                "name": name,
                "seed": seed,
                "step": by_name[name].step,
                "state": state if (state := by_name[name].state) in ("finished", "failed") else "not finished",
                "verdict": WORDS.get(by_name[name].verdict or "", "none yet"),
            }
            for number, row in enumerate(comparison.rows)
            for name, seed in zip(row.runs, row.seeds, strict=True)
        ],
    )


def _letter(number: int) -> str:
    """The name of a row: A to Z, then AA."""
    before = _letter(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("A") + number % 26)


def _plot(which: int, comparison: Comparison, courses: dict[str, Course]) -> tuple[str, Markup]:
    field, title, unit, level = _PLOTS[which]
    is_distance = field == "energy_distance"
    last_step = max(course.last_step for course in courses.values())
    plot = Plot(f"plot{which}", title, unit, is_distance, FLOOR if is_distance else float("-inf"), last_step)
    for number, row in enumerate(comparison.rows[:MAX_COLOURED]):
        seeds = [list(courses[name].curves[field].thinned(MAX_BUCKETS // 2).points()) for name in row.runs]
        found = [points for points in seeds if points]
        for points in found:
            plot.curve(points, "" if len(found) > 1 else _letter(number), number, "thin" if len(found) > 1 else "mean")
        if len(found) > 1:
            plot.curve(_mean(found), f"{_letter(number)}, mean of {len(found)}", number, "mean")
    if level is not None:
        plot.level(*level)
    if is_distance:
        nulls = [last[1] for course in courses.values() if (last := course.curves["energy_distance_q99"].last)]
        if nulls:
            plot.band(max(nulls), "null band: 99 % of equal samples")
    return f"{title}: {unit[0].lower()}{unit[1:]}", plot.svg()


def _mean(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean of curves where all have been, each taken as straight between its points."""
    first, last = max(points[0][0] for points in curves), min(points[-1][0] for points in curves)
    steps = sorted({step for points in curves for step, _ in points if first <= step <= last})
    return [(step, sum(_at(points, step) for points in curves) / len(curves)) for step in steps]


def _at(points: Sequence[Point], step: float) -> float:
    before = max((point for point in points if point[0] <= step), key=lambda point: point[0])
    after = min((point for point in points if point[0] >= step), key=lambda point: point[0])
    share = (step - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1] + share * (after[1] - before[1])


def _pictures(comparison: Comparison, collected: Sequence[Collected]) -> tuple[str, list[_Picture]]:
    """In words what is shown, and a lattice of each run: of the last step of which all have one, else of each run's last."""
    lattices = {one.run_dir.path.name: lattices_in(one.folder) for one in collected}
    names = [name for row in comparison.rows for name in row.runs]
    common = set.intersection(*(set(lattices[name]) for name in names)) if names else set()
    words = f"of step {max(common):,}, the last of which all have one" if common else "of each run's last"
    room = MAX_PICTURES_BYTES
    pictures, left_out = [], 0
    for number, row in enumerate(comparison.rows):
        for name, seed in zip(row.runs, row.seeds, strict=True):
            step = max(common or lattices[name], default=None)
            content = lattices[name][step].read_bytes() if step is not None else None
            room -= len(content or b"")
            if room < 0:
                left_out += 1
                continue
            told = f"{_letter(number)}, seed {seed}" + (f", step {step:,}" if step is not None else ": no lattice yet")
            pictures.append(_Picture(name, told, data_uri(content) if content is not None else None))
    return words + (f"; {left_out} more are left out, to keep this page small" if left_out else ""), pictures
