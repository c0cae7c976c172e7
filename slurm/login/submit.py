"""`aae-slurm submit`: checks, writes the run directory, and sends the run to Slurm."""

import shlex
import sys

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.segment.plan import plan_start
from slurm.login.batch_script import ignored_options, script_text
from slurm.login.submit_once import submit_once


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
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    plan = plan_start(configuration)
    if options.dry_run:
        print(script_text(plan.run_dir, configuration.allocation), end="")
        return 0
    if plan.is_finished:
        print(f"finished already: {plan.run_dir.path}")
        return 0
    for line in ignored_options():
        print(f"aae-slurm: note: {line}", file=sys.stderr)
    submission = submit_once(plan, configuration, local=options.local)
    print(f"run   {plan.run_dir.path}")
    print(f"{'as' if submission.is_new else 'it has already'}    {submission.holder}")
    name = shlex.quote(str(plan.run_dir.path))
    print(f"next:\n  aae-slurm status {name}\n  aae-slurm log {name} --follow --event step\n  aae-slurm cancel {name}")
    return 0
