"""`aae-slurm run`: for batch scripts of one's own; trains inside the present allocation."""

import os
import sys

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.errors import UsageError
from job.segment.plan import plan_start
from slurm.node.segment import run_segment, warning_without_signal
from slurm.node.signals import AllocationStop
from slurm.node.start import Start


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
    with AllocationStop() as stop:
        warning = warning_without_signal(start)
        if warning:
            print(f"aae-slurm: warning: {warning}", file=sys.stderr, flush=True)
        return run_segment(plan_start(configuration), stop, start)
