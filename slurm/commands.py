"""The commands of `aae-slurm`; each takes its arguments and returns an exit code."""

import json
import os
import shlex
import sys
from pathlib import Path

from job.commandline import Parser, add_run, printable
from job.errors import UsageError
from job.rundir import RunDir, default_runs_dir, find_run


def submit(arguments: list[str]) -> int:
    """checks, writes the run directory, submits; prints run, job id and what to type next"""
    from job.datasets import check_dataset
    from job.flags import add_settings, read_configuration_from
    from job.record import plan_start

    parser = Parser(
        "aae-slurm submit",
        "Sends the run that the settings describe to Slurm, which starts it again after every time limit and preemption\n"
        "until it is finished. A run that is queued, running or finished already is left as it is.\n"
        "Exit code 0: it is queued, running or finished; 1: the scheduler refused or is away; 2: refused here.",
        "AAE_SLURM_TIME=04:00:00 aae-slurm submit --epochs 100",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="print the batch script that would be sent; send nothing")
    how.add_argument(
        "--local", action="store_true", help="run on this machine without Slurm, beyond the end of this shell"
    )
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings
    check_dataset(settings.dataset, settings.data_dir)
    run_dir = RunDir(settings.run_dir)
    plan = plan_start(run_dir, configuration)

    from slurm.launch import script_text
    from slurm.submit import submit as hand_over

    if options.dry_run:
        print(script_text(run_dir, configuration.allocation), end="")
        return 0
    if plan.is_finished:
        print(f"finished already: {run_dir.path}")
        return 0
    submission = hand_over(run_dir, plan, configuration, local=options.local)
    print(f"run   {run_dir.path}")
    print(f"{'as' if submission.is_new else 'it has already'}    {submission.holder}")
    name = shlex.quote(str(run_dir.path))
    print(f"next:\n  aae-slurm status {name}\n  aae-slurm log {name} --follow --event step\n  aae-slurm cancel {name}")
    return 0


def run(arguments: list[str]) -> int:
    """for plain sbatch scripts: trains inside the present allocation, with the same stop, save and requeue"""
    from job.datasets import check_dataset
    from job.flags import add_settings, read_configuration_from
    from job.record import plan_start

    parser = Parser(
        "aae-slurm run",
        "Trains the run that the settings describe inside the present allocation: it stops at a step border when Slurm\n"
        "asks, saves, and has the job started again. Outside an allocation: exit code 2.",
        "srun env --block-signal=USR2 aae-slurm run --dataset digits",
    )
    add_settings(parser)
    _, configuration = read_configuration_from(parser, arguments)
    settings = configuration.settings
    check_dataset(settings.dataset, settings.data_dir)

    from slurm.segment import run_segment, warning_without_signal
    from slurm.signals import AllocationStop
    from slurm.start import Start

    start = Start.of(os.environ)
    if start is None:
        raise UsageError(
            "there is no SLURM_JOB_ID: this is for batch scripts; `aae-job` trains here, `aae-slurm submit` submits"
        )
    with AllocationStop() as stop:
        warning = warning_without_signal(start)
        if warning:
            print(f"aae-slurm: warning: {warning}", file=sys.stderr, flush=True)
        run_dir = RunDir(settings.run_dir)
        return run_segment(run_dir, plan_start(run_dir, configuration), stop, start)


def status(arguments: list[str]) -> int:
    """one line a run: state, steps, time left; works without accounting and without the scheduler"""
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

    from slurm.queue import list_jobs
    from slurm.states import heartbeat_age_s, show

    run_dirs = options.runs or _all_runs()
    jobs = list_jobs()
    shown = [found for run_dir in run_dirs if (found := show(run_dir, jobs)) is not None]
    if options.json:
        print(json.dumps([one.as_json() for one in shown], indent=1))
    else:
        for one in shown:
            kept = one.status
            percent = 100 * kept.step / kept.total_steps
            steps = f"{kept.step:,}/{kept.total_steps:,} ({percent:.0f} %)"
            columns = [f"{printable(one.run_dir.path.name):<40} {one.state:<9} {steps:>20}"]
            if one.state == "running":
                columns.append(f"{_duration(kept.eta_s)} left, heartbeat {heartbeat_age_s(kept):.0f} s ago")
            columns += [f"job {one.job_id}"] if one.job_id else []
            columns += [one.note] if one.note else []
            columns += [printable(kept.verdict)] if kept.verdict else []
            print("  ".join(columns))
        if not shown:
            print(f"no runs in {default_runs_dir().absolute()}")
        if jobs is None:
            print("note: squeue does not answer; this is what the run directories say", file=sys.stderr)
    return 1 if any(one.needs_person for one in shown) else 0


def log(arguments: list[str]) -> int:
    """the event log as one clean stream, superseded records left out"""
    parser = Parser(
        "aae-slurm log",
        "Prints the records that count, one JSON object a line: those that a later segment did again are left out.",
        "aae-slurm log digits-2d-seed0-44136fa3 --event step --fields step,reconstruction_loss,d_accuracy --csv",
    )
    add_run(parser)
    parser.add_argument("--follow", action="store_true", help="go on with new records until the run ends")
    parser.add_argument("--event", metavar="NAME", help="only records of this event")
    parser.add_argument("--fields", metavar="a,b,c", help="only these keys, in this order, null where absent")
    parser.add_argument("--csv", action="store_true", help="comma-separated values with a header line")
    options = parser.parse_args(arguments)

    from slurm.stream import print_log

    fields = options.fields.split(",") if options.fields else None
    print_log(options.run, event=options.event, fields=fields, csv=options.csv, follow=options.follow)
    return 0


def cancel(arguments: list[str]) -> int:
    """stops a run for good, until it is submitted or started again; it stays resumable"""
    parser = Parser(
        "aae-slurm cancel",
        "Stops a run: it saves and ends, and is not started again by itself.",
        "aae-slurm cancel RUN",
    )
    add_run(parser)
    options = parser.parse_args(arguments)

    from slurm.stop import cancel_run

    return cancel_run(options.run)


def collect(arguments: list[str]) -> int:
    """copies what one keeps of runs: weights, lattices, settings, metrics as CSV, a manifest"""
    parser = Parser(
        "aae-slurm collect",
        "Copies what one keeps of each run into OUT/<run>/, with the SHA-256 of every file in OUT/<run>/manifest.json.",
        "aae-slurm collect digits-2d-seed0-44136fa3 results",
    )
    parser.add_argument("runs", nargs="+", type=find_run, metavar="RUN", help="paths or names under AAE_RUNS_DIR")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to copy to; made if it is not there")
    options = parser.parse_args(arguments)

    from slurm.collect import collect_run

    for run_dir in options.runs:
        print(collect_run(run_dir, options.out))
    return 0


def _all_runs() -> list[RunDir]:
    folder = default_runs_dir().absolute()
    return [RunDir(path.parent) for path in sorted(folder.glob("*/settings.json"))]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
