"""`aae-slurm submit`: checks, writes the run directory, and sends the run to Slurm."""

import argparse
import json
import shlex
import sys
from typing import Any

from job.commandline import Parser
from job.config.allocation import Allocation
from job.config.flags import add_settings, read_flags
from job.config.sources import Configuration
from job.errors import UsageError
from job.output import as_it_stands
from job.rundir.directory import RunDir
from job.rundir.small_file import exists
from job.rundir.status import read_status
from job.rundir.sweep import SweepDir
from job.segment.plan import plan_start
from slurm.login.batch_script import Order, ignored_options, script_text
from slurm.login.plan import plan_run
from slurm.login.submit_once import submit_once
from slurm.login.sweep.command import run_sweep
from slurm.login.unbegun import death_before_beginning, newest_job_id, script_of
from slurm.scheduler.queue import list_jobs
from slurm.scheduler.site import requeue_s


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
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
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object: run, run_dir, cluster, state, job_id, is_new, next, plan; or script",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="FIELD=V,V",
        help="an axis of a sweep: one run for each value, such as latent_dim=2,8 or seed=0..4; several axes: for each of their "
        "combinations; FIELD,FIELD=V:V,V:V: for values that go together",
    )
    parser.add_argument(
        "--parallel",
        type=_parallel,
        metavar="N",
        help="how many runs of a sweep may train at once; 0: no limit of its own",
    )
    add_settings(parser)
    flags = read_flags(parser, arguments)
    if flags.options.sweep:
        return run_sweep(flags)
    if flags.options.parallel is not None:
        raise UsageError("--parallel is for a sweep: it says how many of its runs may train at once; add --sweep")
    options, configuration = flags.options, flags.read_configuration()
    return _run_one(options, configuration)


def _run_one(options: argparse.Namespace, configuration: Configuration) -> int:
    plan = plan_start(configuration)
    run_dir = plan.run_dir
    _refuse_name_of_sweep(run_dir)
    told: dict[str, Any] = {"run": run_dir.path.name, "run_dir": str(run_dir.path)}
    if options.dry_run:
        script = script_text(Order.of_run(run_dir, configuration.allocation), configuration.allocation)
        as_it_stands().write(json.dumps({**told, "script": script}, indent=1) + "\n" if options.json else script)
        return 0
    told |= {"cluster": configuration.allocation.cluster}
    if plan.is_finished:
        told |= {
            "state": "finished",
            "job_id": None,
            "is_new": False,
            "next": f"aae-slurm collect {_quoted(run_dir)} results",
        }
        print(json.dumps(told, indent=1) if options.json else f"finished already: {run_dir.path}")
        return 0
    for line in ignored_options():
        print(f"aae-slurm: note: {line}", file=sys.stderr)
    death = None if options.local else _death_of_the_same_job(run_dir, configuration.allocation)
    submission = submit_once(plan, configuration, local=options.local)
    if death is not None and submission.is_new:
        print(f"aae-slurm: warning: the last job was the same as this one; {death}", file=sys.stderr)
    status = read_status(run_dir)
    steps_done = status.step if status is not None else 0
    ahead = None
    if not options.local:
        waits_s = requeue_s(configuration.allocation.cluster)
        ahead = plan_run(plan.settings, configuration.allocation, steps_done=steps_done, requeue_s=waits_s)
    if options.json:
        told |= {"plan": ahead.as_json() if ahead is not None else None}
        told |= {"state": status.state if status is not None else "submitted", "job_id": submission.job_id}
        told |= {"is_new": submission.is_new, "next": f"aae-slurm status {_quoted(run_dir)}"}
        print(json.dumps(told, indent=1))
        return 0
    name = _quoted(run_dir)
    print(f"run   {run_dir.path}")
    print(f"{'as' if submission.is_new else 'it has already'}    {submission.holder}")
    if ahead is not None:
        print(f"plan  {ahead.summary}")
    print(f"next:\n  aae-slurm watch {name}\n  aae-slurm status {name}\n  aae-slurm cancel {name}")
    return 0


def _parallel(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 100_000:
        raise ValueError
    return number


_parallel.__name__ = "number of runs"  # how argparse names it in an error


def _quoted(run_dir: RunDir) -> str:
    return shlex.quote(str(run_dir.path))


def _refuse_name_of_sweep(run_dir: RunDir) -> None:
    sweep_dir = SweepDir.named(run_dir.path.parent, run_dir.path.name)
    if exists(sweep_dir.file) and not exists(run_dir.settings_file):
        raise UsageError(
            f"{run_dir.path.name} is the name of a sweep ({sweep_dir.path}): add its --sweep to go on with it, or take another "
            "AAE_RUN_NAME"
        )


def _death_of_the_same_job(run_dir: RunDir, allocation: Allocation) -> str | None:
    """What is known of the run's last job if that had this very script and died before the run began."""
    job_id = newest_job_id(run_dir)
    if job_id is None or script_of(run_dir, job_id) != script_text(Order.of_run(run_dir, allocation), allocation):
        return None
    if any(job.is_cancelled for job in list_jobs(job_id=job_id) or []):
        return None
    return death_before_beginning(run_dir, job_id)
