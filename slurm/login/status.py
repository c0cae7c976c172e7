"""`aae-slurm status`: one line a run, from the run directories and one call of squeue; all the rest of the runs that are named."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from job.commandline import Parser
from job.rundir.directory import RunDir
from job.rundir.find import Found, default_runs_dir, find_runs
from job.rundir.small_file import exists, names_in
from job.rundir.status import State
from job.rundir.sweep import Sweeps
from slurm.login.clusters import Queues
from slurm.login.details import details_of
from slurm.login.overview import folded, line_of, print_lines, terminal_width
from slurm.login.states import Shown, show
from slurm.scheduler.queue import SQUEUE_TIMEOUT_S

STATES = (*get_args(State), "lost")
_LAST = (1, 0.0)  # of a key to sort by: without a value

SORTED_BY: dict[str, Callable[[Shown], Any]] = {
    "name": lambda one: one.run_dir.path.name,
    "state": lambda one: STATES.index(one.state),
    "done": lambda one: one.status.step / one.status.total_steps if one.status.total_steps else -1.0,
    "bce": lambda one: _number(one.figures.get("reconstruction_bce")),
    "left": lambda one: _number(one.ends_at),
    "updated": lambda one: one.status.updated_at,
}


def _number(value: float | None) -> tuple[int, float]:
    return _LAST if value is None else (0, value)


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    looker = _Looker()
    groups = [(found, looker.look(found.runs)) for found in options.runs or _all()]
    shown = list({one.run_dir.path: one for _, ones in groups for one in ones}.values())
    if options.state is not None:
        shown = [one for one in shown if one.state in options.state]
    if options.sort is not None:
        shown.sort(key=SORTED_BY[options.sort])
    if options.json:
        print(json.dumps([one.as_json() for one in shown], indent=1))
    elif options.unfold or options.state is not None or options.sort is not None:
        _print_runs(shown)
    elif options.runs:
        _print_named(groups)
    else:
        print_lines([line for found, ones in groups for line in _lines(found, ones)]) if shown else None
    if not options.json:
        if not shown:
            of = f" that are {' or '.join(options.state)}" if options.state is not None else ""
            print(f"no runs{of} in {default_runs_dir().absolute()}")
        if looker.is_blind:
            print("note: squeue does not answer; this is what the run directories say", file=sys.stderr)
    return 1 if looker.missed or any(one.needs_person for one in shown) else 0


def _parser() -> Parser:
    parser = Parser(
        "aae-slurm status",
        "Tells how runs are, from their directories and one call of squeue: a line each, or all that is known of those that are\n"
        "named. DONE is the share of the steps, BCE that of the newest evaluation (held-out images, nats a pixel), VERDICT the\n"
        "last on saturation. LEFT is the time until it is finished, with the waits between its segments as met so far; or why its\n"
        "job waits (quota, resources, held, dependency, other), and when Slurm expects to start it; or what is wrong.\n"
        "Exit code 0: fine; 1: a run has failed, is lost, or waits without a job; 2: no such run.",
        "aae-slurm status --json | jq '.[] | select(.needs_person) | .run'",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=find_runs,
        metavar="RUN",
        help="paths or names of runs, or names of sweeps, under AAE_RUNS_DIR [all there]",
    )
    parser.add_argument("--runs", action="store_true", dest="unfold", help="each run of a sweep on a line of its own")
    parser.add_argument(
        "--state",
        type=_states,
        metavar="STATE[,STATE]",
        help=f"only runs in these states, each on a line of its own: {', '.join(STATES)}",
    )
    parser.add_argument(
        "--sort",
        choices=SORTED_BY,
        metavar="COLUMN",
        help=f"each run on a line of its own, in rising order of: {', '.join(SORTED_BY)}",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array of the runs")
    return parser


def _states(text: str) -> list[str]:
    names = text.split(",")
    unknown = next((name for name in names if name not in STATES), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(f"{unknown!r} is no state; there are {', '.join(STATES)}")
    return names


class _Looker:
    """Looks at runs, asking each cluster once."""

    def __init__(self) -> None:
        self.is_blind = False
        self.missed = False
        self._queues = Queues(SQUEUE_TIMEOUT_S)

    def look(self, run_dirs: list[RunDir]) -> list[Shown]:
        """The runs that can be read; says on stderr which cannot."""
        shown = []
        for run_dir in run_dirs:
            try:
                jobs = self._queues.of_run(run_dir)
                found = show(run_dir, jobs)
            except OSError as error:
                print(f"note: {run_dir.path.name} is left out, it cannot be read: {error}", file=sys.stderr)
                self.missed = True
                continue
            self.is_blind |= jobs is None
            if found is None:
                print(
                    f"note: {run_dir.path.name} is left out, it has no status.json: nothing has started it yet",
                    file=sys.stderr,
                )
                continue
            shown.append(found)
        return shown


def _lines(found: Found, ones: list[Shown]) -> list[Any]:
    return [folded(found.sweep, len(found.runs), ones)] if found.sweep else [line_of(one) for one in ones]


def _print_runs(shown: list[Shown]) -> None:
    if shown:
        print_lines([line_of(one) for one in shown])


def _print_named(groups: list[tuple[Found, list[Shown]]]) -> None:
    """Each with its line, and below it all the rest."""
    width = terminal_width() if sys.stdout.isatty() else None
    for number, (found, ones) in enumerate(group for group in groups if group[1]):
        print("\n" * (number > 0), end="")
        print_lines(_lines(found, ones))
        lines = _of_sweep(found.sweep, ones) if found.sweep else details_of(ones[0], width)
        print("".join(f"{line}\n" for line in lines), end="")


def _of_sweep(name: str, ones: list[Shown]) -> list[str]:
    """What needs a person of a sweep's runs, said once where it is the same."""
    needy = [one for one in ones if one.needs_person]
    saturated = sum(one.status.saturation == "saturated" for one in ones)
    lines = [f"  {saturated} of {len(ones)} saturated"]
    for told, count in Counter(one.note or one.status.verdict or one.state for one in needy).items():
        first = next(one for one in needy if told == (one.note or one.status.verdict or one.state))
        such = (
            f"{count} need you, such as {first.run_dir.path.name}"
            if count > 1
            else f"{first.run_dir.path.name} needs you"
        )
        lines += [f"  {such}: {told}", *([f"    {first.next}"] if first.next else [])]
    named = shlex.quote(str(ones[0].run_dir.path.with_name(name)))
    return [*lines, f"  each of them: aae-slurm status {named} --runs"]


def _all() -> list[Found]:
    """Every run of AAE_RUNS_DIR: each sweep, then the runs that are of none."""
    folder = default_runs_dir().absolute()
    sweeps = Sweeps(folder)
    for words in sweeps.damaged:
        print(f"note: a sweep's runs stand alone here: {words}", file=sys.stderr)
    folded = [Found([d.run_dir(e.run) for e in sweep.elements], sweep.name) for d, sweep in sweeps.all.values()]
    inside = {run_dir.path.name for found in folded for run_dir in found.runs}
    runs = [RunDir(folder / name) for name in names_in(folder) if name not in inside and not name.startswith(".")]
    return [*folded, *(Found([run_dir]) for run_dir in runs if _is_run(run_dir))]


def _is_run(run_dir: RunDir) -> bool:
    """Whether a folder is a run's, or cannot be looked into."""
    try:
        return exists(run_dir.settings_file)
    except OSError:
        return True
