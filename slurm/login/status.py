"""`aae-slurm status`: one line a run, from the run directories and one call of squeue."""

import json
import sys

from job.commandline import Parser, duration
from job.output import size
from job.rundir.directory import RunDir
from job.rundir.find import default_runs_dir, find_run
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
        "runs", nargs="*", type=find_run, metavar="RUN", help="paths or names under AAE_RUNS_DIR [all runs there]"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    options = parser.parse_args(arguments)
    run_dirs = options.runs or _all_runs()
    queues = Queues(SQUEUE_TIMEOUT_S)
    shown, answers, unreadable = [], [], False
    for run_dir in run_dirs:
        try:
            answers.append(queues.of_run(run_dir))
            found = show(run_dir, answers[-1])
        except OSError as error:
            print(f"note: {run_dir.path.name} is left out, it cannot be read: {error}", file=sys.stderr)
            unreadable = True
            continue
        shown += [found] if found is not None else []
    if options.json:
        print(json.dumps([one.as_json() for one in shown], indent=1))
    else:
        for one in shown:
            print(_line(one))
        if not shown:
            print(f"no runs in {default_runs_dir().absolute()}")
        if None in answers:
            print("note: squeue does not answer; this is what the run directories say", file=sys.stderr)
    return 1 if unreadable or any(one.needs_person for one in shown) else 0


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


def _all_runs() -> list[RunDir]:
    folder = default_runs_dir().absolute()
    return [RunDir(path.parent) for path in sorted(folder.glob("*/settings.json"))]
