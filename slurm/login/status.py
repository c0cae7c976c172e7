"""`aae-slurm status`: one line a run, from the run directories and one call of squeue."""

import json
import sys
from collections import Counter

from job.commandline import Parser, duration
from job.output import size
from job.rundir.directory import RunDir
from job.rundir.find import Found, default_runs_dir, find_runs
from job.rundir.sweep import Sweeps
from slurm.login.clusters import Queues
from slurm.login.states import Shown, heartbeat_age_s, progress_age_s, show, size_bytes
from slurm.scheduler.queue import SQUEUE_TIMEOUT_S

STILL_S = 60.0  # without a step for longer is told


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm status",
        "Tells how runs are, from their directories and one call of squeue.\n"
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
    parser.add_argument("--json", action="store_true", help="print a JSON array of the runs")
    options = parser.parse_args(arguments)
    named = options.runs or _all()
    looker = _Looker()
    groups = [(found, looker.look(found.runs)) for found in named]
    shown = list({one.run_dir.path: one for _, ones in groups for one in ones}.values())
    if options.json:
        print(json.dumps([one.as_json() for one in shown], indent=1))
    elif options.unfold:
        print("".join(f"{_line(one)}\n" for one in shown), end="")
    else:
        for found, ones in groups:
            lines = [_folded(found.sweep, len(found.runs), ones)] if found.sweep else map(_line, ones)
            print("".join(f"{line}\n" for line in lines), end="")
    if not shown and not options.json:
        print(f"no runs in {default_runs_dir().absolute()}")
    if looker.is_blind and not options.json:
        print("note: squeue does not answer; this is what the run directories say", file=sys.stderr)
    return 1 if looker.missed or any(one.needs_person for one in shown) else 0


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
            shown += [found] if found is not None else []
        return shown


def _line(one: Shown) -> str:
    kept = one.status
    steps = f"{kept.step:,}/?"
    if kept.total_steps > 0:
        steps = f"{kept.step:,}/{kept.total_steps:,} ({100 * kept.step / kept.total_steps:.0f} %)"
    columns = [f"{one.run_dir.path.name:<40} {one.state:<9} {steps:>20} {size(size_bytes(one.run_dir)):>7}"]
    if one.state == "running":
        left = duration(kept.eta_s) if kept.eta_s is not None else "unknown time"
        still_s = progress_age_s(kept) or 0.0
        still = f", no step for {duration(still_s)}" if still_s > STILL_S else ""
        columns.append(f"{left} left, heartbeat {heartbeat_age_s(kept):.0f} s ago{still}")
    columns += [f"job {one.job_id}"] if one.job_id else []
    columns += [one.note] if one.note else []
    columns += [kept.verdict] if kept.verdict else []
    return "  ".join(columns)


def _folded(name: str, size: int, ones: list[Shown]) -> str:
    """A sweep on one line: how many of its runs are in which state, and what needs a person."""
    states = Counter("pending" if one.pending_reason is not None else one.state for one in ones)
    order = ["finished", "running", "pending", *sorted(set(states) - {"finished", "running", "pending"})]
    counts = [f"{states[state]} {state}" for state in order if states[state]]
    counts += [f"{size - len(ones)} not there"] if len(ones) < size else []
    saturated = sum(one.status.saturation == "saturated" for one in ones)
    done, total = sum(one.status.step for one in ones), sum(one.status.total_steps for one in ones)
    share = f"{100 * done / total:.0f} %" if total else "? %"
    columns = [f"{name:<40} sweep of {size}", f"{share:>5}", ", ".join(counts), f"{saturated} saturated"]
    needy = [one for one in ones if one.needs_person]
    if needy:
        those = (
            f"{len(needy)} need you, such as {needy[0].run_dir.path.name}"
            if len(needy) > 1
            else needy[0].run_dir.path.name
        )
        columns.append(f"{those}{' needs you' if len(needy) == 1 else ''}: aae-slurm status {name} --runs")
    return "  ".join(columns)


def _all() -> list[Found]:
    """Every run of AAE_RUNS_DIR: each sweep, then the runs that are of none."""
    folder = default_runs_dir().absolute()
    sweeps = Sweeps(folder)
    for words in sweeps.damaged:
        print(f"note: a sweep's runs stand alone here: {words}", file=sys.stderr)
    runs = [path.parent.name for path in sorted(folder.glob("*/settings.json"))]
    folded = [Found([d.run_dir(e.run) for e in sweep.elements], sweep.name) for d, sweep in sweeps.all.values()]
    inside = {run_dir.path.name for found in folded for run_dir in found.runs}
    return [*folded, *(Found([RunDir(folder / run)]) for run in runs if run not in inside)]
