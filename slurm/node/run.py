"""`aae-slurm run`: for batch scripts of one's own; trains inside the present allocation."""

import os
import re
import sys

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.config.sources import FIELDS, Configuration, variable
from job.errors import UsageError
from job.output import wait_for_no_reader
from job.rundir.directory import RunDir
from job.rundir.patience import at_start
from job.segment.plan import plan_start
from slurm.node.segment import run_segment, warning_without_signal
from slurm.node.signals import AllocationStop
from slurm.node.start import Start
from slurm.scheduler.queue import batch_script


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm run",
        "Trains the run that the settings describe inside the present allocation: it stops at a step border when Slurm\n"
        "asks, saves, and has the job started again. Outside an allocation: exit code 2.",
        "srun env --block-signal=USR2 aae-slurm run --dataset digits",
    )
    add_settings(parser)
    _, configuration = read_configuration_from(parser, arguments)
    start = Start.of(os.environ)
    if start is None:
        raise UsageError(
            "there is no SLURM_JOB_ID: this is for batch scripts; `aae-job` trains here, `aae-slurm submit` submits"
        )
    if os.environ.get("SLURM_PROCID", "0") != "0" and not start.local:
        print(f"aae-slurm: one task trains a run, this is task {os.environ['SLURM_PROCID']}: nothing to do", flush=True)
        return 0
    wait_for_no_reader()
    with AllocationStop() as stop:
        script = batch_script(start.job_id)
        _refuse_dropped_variables(script or "", configuration)
        warning = warning_without_signal(script)
        if warning:
            print(f"aae-slurm: warning: {warning}", file=sys.stderr, flush=True)
        run_dir = RunDir(configuration.settings.run_dir)
        return run_segment(lambda: at_start(lambda: plan_start(configuration), run_dir, print), stop, start)


def _refuse_dropped_variables(script: str, configuration: Configuration) -> None:
    """Raise UsageError where the batch script sets variables of a run that did not arrive here: it would be another run."""
    lines = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))
    named = set(re.findall(r"(?<![\w$])(AAE_\w+)=", lines)) - set(os.environ)
    dropped = [
        name
        for field in FIELDS
        if (name := variable(field)) in named and configuration.sources[field] in ("default", "recipe")
    ]
    if dropped:
        raise UsageError(
            f"the batch script sets {', '.join(dropped)}, which did not arrive here: srun drops them where the job was "
            "submitted with --export=NONE, by you or by the site's rules. Add --export=ALL to the script's srun, and see that "
            "they are exported"
        )
