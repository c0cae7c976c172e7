"""`aae-job`: trains here, now: starts, resumes, or says that the run is finished."""

import os
import platform
import shlex
import shutil
import sys

from job.commandline import Parser, duration
from job.commands import COMMANDS
from job.commands.progress import Display
from job.config.flags import add_settings, read_configuration_from
from job.errors import EXIT_FINISHED, EXIT_INTERRUPTED, EXIT_RESUMABLE, GraphError
from job.output import wait_for_no_reader
from job.rundir.claim import StopReason
from job.rundir.directory import RunDir
from job.rundir.patience import at_start
from job.rundir.status import read_status
from job.segment.anew import start_anew
from job.segment.plan import Plan, plan_start
from job.segment.run import Run
from job.segment.signals import SignalStop

_IN_A_JOB = ("SLURM_JOB_ID", "SUBMITIT_EXECUTOR")  # what Slurm, and submitit's own executor, set for what they start


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    _, configuration = read_configuration_from(_parser(), arguments)
    wait_for_no_reader()
    plan = at_start(lambda: plan_start(configuration), RunDir(configuration.settings.run_dir), print)
    if plan.is_finished:
        print(f"finished already: {plan.run_dir.path.name}")
        _tell_results(plan)
        return EXIT_FINISHED
    if is_beside_cluster():
        print(f"this trains here, on {platform.node()}; aae-slurm submit sends it to the cluster")
    print(f"run {plan.run_dir.path}")
    with SignalStop() as stop:
        try:
            with Run(plan, tell=print) as segment:
                segment.load()
                reason = _train_visibly(segment, stop)
                if reason is not None:
                    return _leave(segment, stop, reason)
                segment.finish()
                trainer = segment.trainer
                print(f"finished: {trainer.step:,} steps, {duration(trainer.clock.elapsed_s)} of training")
                _tell_results(plan)
                return EXIT_FINISHED
        except GraphError as error:
            start_anew(stop, error)


def is_beside_cluster() -> bool:
    """Whether this process is no job's, though jobs could be submitted from here."""
    return shutil.which("sbatch") is not None and not any(name in os.environ for name in _IN_A_JOB)


def _train_visibly(segment: Run, stop: SignalStop) -> StopReason | None:
    def ask() -> StopReason | None:
        reason = stop()
        if stop.noticed is not None:
            segment.log.write("signal", step=segment.trainer.step, signal=stop.noticed.name)
        if reason == "interrupt":
            print("\nsaving; Ctrl-C again leaves at once without saving", file=sys.stderr)
        return reason

    with Display(segment.trainer) as display:
        segment.trainer.observe = display.observe
        return segment.train(ask)


def _leave(segment: Run, stop: SignalStop, reason: StopReason) -> int:
    exit_code = EXIT_INTERRUPTED if reason == "interrupt" else EXIT_RESUMABLE
    cause = "cancel mark" if stop.noticed is None or reason == "cancel" else stop.noticed.name
    verdict = f"{cause} at step {segment.trainer.step:,} of {segment.settings.total_steps:,}: saved, nothing is lost"
    segment.leave(reason, verdict, exit_code)
    print(f"stopped by {verdict}; the same command goes on from there")
    return exit_code


def _tell_results(plan: Plan) -> None:
    run_dir, settings = plan.run_dir, plan.settings
    name = shlex.quote(str(run_dir.path))
    status = read_status(run_dir)
    lines = [
        f"  verdict  {status.verdict or '' if status is not None else ''}",
        f"  lattice  {run_dir.final_lattice}",
        f"  curves   {run_dir.final_curves}",
        f"  weights  {run_dir.final_weights}",
        f"  log      {run_dir.events_file}",
        "next:",
        f"  aae-job evaluate {name}",
        f"  aae-slurm collect {name} results    with a page to look at",
    ]
    if status is not None and status.reason == "saturated":
        lines.append("  aae-job --stop-when-saturated false    with the same settings goes on to the total")
    elif settings.lr_schedule == "constant":
        lines.append(f"  aae-job --max-steps {2 * settings.total_steps}    with the same settings goes on from here")
    print("\n".join(lines))


def _parser() -> Parser:
    parser = Parser(
        "aae-job",
        "Trains an adversarial autoencoder here, now, from AAE_* variables or flags: starts, resumes, or says that the run\n"
        "is finished. Ctrl-C or SIGTERM saves and stops; the same command goes on.\n\n"
        "other commands, each with --help:\n"
        + "\n".join(f"  aae-job {name:<14} {command.does}" for name, command in COMMANDS.items())
        + "\n\nexit codes: 0 finished, 2 refused, 3 a restart will not help, 75 stopped and resumable, 130 Ctrl-C, 1 else",
        "AAE_MAX_STEPS=500 aae-job --run-name first-look",
    )
    add_settings(parser)
    return parser
