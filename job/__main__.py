"""`aae-job`: trains here and now, from the settings of the environment; the same command starts and resumes."""

import shlex
import sys

from job.commandline import Parser, printable, run_command
from job.commands import COMMANDS
from job.datasets import check_dataset
from job.errors import EXIT_FINISHED, EXIT_INTERRUPTED, EXIT_RESUMABLE
from job.events import StopReason
from job.flags import add_settings, read_configuration_from
from job.record import plan_start
from job.run import Run
from job.rundir import RunDir
from job.settings import Settings
from job.signals import SignalStop
from job.status import read_status


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return run_command("aae-job", COMMANDS[arguments[0]], arguments[1:])
    return run_command("aae-job", train, arguments)


def train(arguments: list[str]) -> int:
    """Train: start, resume, or say that the run is finished."""
    _, configuration = read_configuration_from(_train_parser(), arguments)
    settings = configuration.settings
    check_dataset(settings.dataset, settings.data_dir)
    run_dir = RunDir(settings.run_dir)
    plan = plan_start(run_dir, configuration)
    if plan.is_finished:
        print(f"finished already: {run_dir.path.name}")
        _tell_results(run_dir, settings)
        return EXIT_FINISHED
    print(f"run {run_dir.path}")
    with SignalStop() as stop, Run(run_dir, plan, tell=print) as run:
        run.load()
        reason = _train_visibly(run, stop)
        if reason is not None:
            return _leave(run, stop, reason)
        run.finish()
    print(f"finished: {run.trainer.step:,} steps, {_duration(run.trainer.elapsed_s)} of training")
    _tell_results(run_dir, settings)
    return EXIT_FINISHED


def _train_visibly(run: Run, stop: SignalStop) -> StopReason | None:
    from job.display import Display

    def ask() -> StopReason | None:
        reason = stop()
        if stop.signal is not None:
            run.log.write("signal", step=run.trainer.step, signal=stop.signal.name)
        return reason

    with Display(run.trainer) as display:
        run.trainer.observe = display.observe
        return run.train(ask)


def _leave(run: Run, stop: SignalStop, reason: StopReason) -> int:
    exit_code = EXIT_INTERRUPTED if reason == "interrupt" else EXIT_RESUMABLE
    cause = "cancel mark" if stop.signal is None or reason == "cancel" else stop.signal.name
    verdict = f"{cause} at step {run.trainer.step:,} of {run.settings.total_steps:,}: saved, nothing is lost"
    run.leave(reason, verdict, exit_code)
    print(f"stopped by {verdict}; the same command goes on from there")
    return exit_code


def _tell_results(run_dir: RunDir, settings: Settings) -> None:
    name = shlex.quote(str(run_dir.path))
    status = read_status(run_dir)
    lines = [
        f"  verdict  {printable(status.verdict or '') if status is not None else ''}",
        f"  lattice  {run_dir.final_lattice}",
        f"  curves   {run_dir.final_curves}",
        f"  weights  {run_dir.final_weights}",
        f"  log      {run_dir.events_file}",
        "next:",
        f"  aae-job evaluate {name}",
        f"  aae-job sample {name} --random 100 --out samples.png",
    ]
    if status is not None and status.reason == "saturated":
        lines.append("  aae-job --stop-when-saturated false    with the same settings goes on to the total")
    elif settings.lr_schedule == "constant":
        lines.append(f"  aae-job --max-steps {2 * settings.total_steps}    with the same settings goes on from here")
    print("\n".join(lines))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _train_parser() -> Parser:
    parser = Parser(
        "aae-job",
        "Trains an adversarial autoencoder here, now, from AAE_* variables or flags: starts, resumes, or says that the run\n"
        "is finished. Ctrl-C or SIGTERM saves and stops; the same command goes on.\n\n"
        "other commands, each with --help:\n"
        + "\n".join(f"  aae-job {name:<14} {command.__doc__}" for name, command in COMMANDS.items())
        + "\n\nexit codes: 0 finished, 2 refused, 3 a restart will not help, 75 stopped and resumable, 130 Ctrl-C, 1 else",
        "AAE_MAX_STEPS=500 aae-job --run-name first-look",
    )
    add_settings(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
