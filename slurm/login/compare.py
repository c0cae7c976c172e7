"""`aae-slurm compare`: one table over runs, seeds together, to paste into a paper."""

import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from job.commandline import Parser
from job.errors import AaeError, UsageError
from job.output import escaped
from job.rundir.directory import RunDir
from job.rundir.find import find_runs
from slurm.login.comparison import COURSE, MEASURED, Comparison, Figure, Row, compare
from slurm.login.facts import Facts, read_facts

# Of each figure the name that is printed, and how it is.
_FIGURES = {
    "reconstruction_loss": ("BCE in training", ".4f"),
    "reconstruction_bce": ("BCE", ".4f"),
    "energy_distance": ("energy distance", ".4f"),
    "energy_distance_q99": ("null band", ".4f"),
    "c2st_accuracy": ("C2ST", ".3f"),
    "knn10_accuracy": ("10 nearest", ".3f"),
    "linear_probe_accuracy": ("linear probe", ".3f"),
    "parzen_log_likelihood": ("Parzen", ".1f"),
    "steps_to_verdict": ("steps to saturated", ",.0f"),
    "hours_to_verdict": ("hours to saturated", ",.2f"),
    "segments": ("segments", ",.1f"),
    "steps_lost": ("steps lost", ",.0f"),
}
_ALWAYS = ("reconstruction_bce", "energy_distance", "energy_distance_q99", "segments", "steps_lost")


@dataclass(frozen=True)
class Column:
    """A column: its key for programs, its name for people, the text of a row in it, and by what it is sorted, None last."""

    key: str
    name: str
    text: Callable[[Row], str]
    value: Callable[[Row], Any]


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm compare",
        "Prints one table over runs, in Markdown: the settings that differ, and runs that differ in the seed alone as one row,\n"
        "with mean and standard deviation (n - 1). Where lengths differ, all figures are of the last step that all have.\n"
        "Unlike runs (another device, version, data set, size of the evaluation) stand in rows of their own, and are marked.\n"
        "Exit code 0: fine; 1: a run could not be read, and is left out; 2: no such run or column.",
        "aae-slurm compare digits-2d-seed0-44136fa3 digits-2d-seed1-a4bbadc1",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="paths or names of runs, or names of sweeps")
    parser.add_argument("--sort", metavar="COLUMN", help="sort by a column, named as it is printed or as in --json")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print comma-separated values with a header line")
    form.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args(arguments)
    chosen = targets(options.runs)
    runs = [facts for run_dir in chosen if (facts := _read(run_dir)) is not None]
    comparison = compare(runs)
    columns = columns_of(comparison)
    rows = _sorted(comparison.rows, columns, options.sort) if options.sort is not None else comparison.rows
    if options.json:
        print(json.dumps(_as_json(comparison, rows), indent=1))
    elif options.csv:
        write_csv(comparison, rows, sys.stdout)
    elif rows:
        _print_table(rows, columns)
        print("\n" + "\n".join(sentences(comparison)))
    return 0 if len(runs) == len(chosen) else 1


def targets(arguments: list[str]) -> list[RunDir]:
    """The runs that are meant, each once, those of a sweep by its name; raises UsageError if there is none of such a name."""
    found: dict[str, RunDir] = {}
    for argument in arguments:
        try:
            run_dirs = find_runs(argument).runs
        except OSError as error:  # it is there, and told of when it is read
            run_dirs = [RunDir(Path(error.filename or argument).parent.absolute())]
        found |= {os.path.realpath(run_dir.path): run_dir for run_dir in run_dirs}
    return list(found.values())


def _read(run_dir: RunDir) -> Facts | None:
    try:
        return read_facts(run_dir)
    except (OSError, AaeError, ValueError) as error:
        told = " ".join(str(error).split())
        print(f"note: {run_dir.path.name} is left out, it cannot be read: {told}", file=sys.stderr)
        return None


def columns_of(comparison: Comparison) -> list[Column]:
    """The columns that the rows fill, and those that are always there."""
    rows = comparison.rows
    shown = [name for name in (*MEASURED, *COURSE) if name in _ALWAYS or any(name in row.figures for row in rows)]
    if all("reconstruction_bce" in row.figures for row in rows):  # of images held out, it says more
        shown = [name for name in shown if name != "reconstruction_loss"]
    return [
        *(_of_setting(name) for name in comparison.differing),
        Column("n", "n", _seeds, lambda row: len(row.runs)),
        Column("verdicts", "verdict", _verdicts, lambda row: row.verdicts.get("saturated", 0) / len(row.runs)),
        *(_of_figure(name) for name in shown),
    ]


def _of_setting(name: str) -> Column:
    def text(row: Row) -> str:
        value = row.settings.get(name)
        return "-" if value is None else value if isinstance(value, str) else json.dumps(value)

    return Column(name, name, text, lambda row: row.settings.get(name))


def _of_figure(key: str) -> Column:
    name, form = _FIGURES[key]

    def text(row: Row) -> str:
        figure = row.figures.get(key)
        return "-" if figure is None else _figure(figure, form, len(row.runs))

    return Column(key, name, text, lambda row: row.figures[key].mean if key in row.figures else None)


def _figure(figure: Figure, form: str, num_runs: int) -> str:
    spread = f" ± {figure.sd:{form}}" if figure.sd is not None else ""
    of_some = f" ({figure.n})" if figure.n < num_runs else ""
    return f"{figure.mean:{form}}{spread}{of_some}"


def _seeds(row: Row) -> str:
    mark = f" [{row.mark}]" if row.mark is not None else ""
    return f"{len(row.runs)} seed{'s' * (len(row.runs) > 1)}{mark}"


def _verdicts(row: Row) -> str:
    """`4 of 5 saturated, 1 not yet`; of a single run the word alone."""
    counted = [(count, verdict.replace("_", " ")) for verdict, count in row.verdicts.items()]
    without = len(row.runs) - sum(row.verdicts.values())
    if not counted:
        return "-"
    (first, word), *others = [*counted, *([(without, "without a verdict")] if without else [])]
    if len(row.runs) == 1:
        return word
    return ", ".join([f"{first} of {len(row.runs)} {word}", *(f"{count} {word}" for count, word in others)])


def _sorted(rows: list[Row], columns: list[Column], name: str) -> list[Row]:
    """Rows in rising order of a column, those without a value last; raises UsageError if there is no such column."""
    column = next((column for column in columns if name in (column.key, column.name)), None)
    if column is None:
        raise UsageError(f"--sort {name}: no such column; there are {', '.join(column.name for column in columns)}")

    def order(row: Row) -> tuple[bool, bool, Any]:
        value = column.value(row)
        is_number = isinstance(value, int | float)
        return value is None, not is_number, value if is_number else str(value)

    return sorted(rows, key=order)


def _print_table(rows: list[Row], columns: list[Column]) -> None:
    """Markdown, which lines up in a terminal as it stands."""
    lines = [[column.name for column in columns], *([column.text(row) for column in columns] for row in rows)]
    cells = [[_cell(text) for text in line] for line in lines]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for number, line in enumerate(cells):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _cell(text: str) -> str:
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t").replace("|", "\\|")


def sentences(comparison: Comparison) -> list[str]:
    """What is to be said below the table."""
    step = comparison.common_step
    at = "of each run's last evaluation" if step is None else f"at step {step:,}"
    if comparison.is_cut:
        at += ", the last that all have" + (", or last before it" if comparison.is_about else "")
        at += "; all else as the runs are now"
    return [f"Figures {at}."] + [f"[{number}] {_cell(note)}." for number, note in enumerate(comparison.notes, 1)]


def _as_json(comparison: Comparison, rows: list[Row]) -> dict[str, Any]:
    return {
        "common_step": comparison.common_step,
        "rows": [
            {
                **asdict(row),
                "settings": {name: row.settings.get(name) for name in comparison.differing},
                "n": len(row.runs),
            }
            for row in rows
        ],
        "marks": dict(enumerate(comparison.notes, 1)),
    }


def write_csv(comparison: Comparison, rows: list[Row], out: TextIO) -> None:
    """A line a row: the mean of each figure under its key, its standard deviation and number beside it."""
    names = [name for name in _FIGURES if any(name in row.figures for row in rows)]
    writer = csv.writer(out, lineterminator="\n")
    figures = [f"{name}{what}" for name in names for what in ("", "_sd", "_n")]
    writer.writerow([*comparison.differing, "runs", "n", "verdicts", *figures, "common_step", "marks"])
    for row in rows:
        found = [row.figures.get(name) for name in names]
        values = [v for one in found for v in ((one.mean, one.sd, one.n) if one is not None else (None, None, 0))]
        settings = [row.settings.get(name) for name in comparison.differing]
        note = comparison.notes[row.mark - 1] if row.mark is not None else None
        writer.writerow(
            [*settings, " ".join(row.runs), len(row.runs), _verdicts(row), *values, comparison.common_step, note]
        )
