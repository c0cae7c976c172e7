"""`aae-slurm`: from the login node. Submits runs, tells how they are, reads their logs, collects what they made."""

import sys
from collections.abc import Callable

from job.commandline import Parser, run_command
from job.errors import UsageError
from slurm.commands import cancel, collect, log, run, status, submit

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "submit": submit,
    "run": run,
    "status": status,
    "log": log,
    "cancel": cancel,
    "collect": collect,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return run_command("aae-slurm", COMMANDS[arguments[0]], arguments[1:])
    return run_command("aae-slurm", _no_command, arguments)


def _no_command(arguments: list[str]) -> int:
    parser = _parser()
    parser.add_argument("command", choices=COMMANDS)
    parser.parse_args(arguments)
    return UsageError.exit_code


def _parser() -> Parser:
    return Parser(
        "aae-slurm",
        "Sends training runs to Slurm and looks after them; nothing here loads torch but `run`.\n\n"
        "commands, each with --help:\n"
        + "\n".join(f"  aae-slurm {name:<9} {command.__doc__}" for name, command in COMMANDS.items()),
        "AAE_DATASET=digits AAE_SLURM_TIME=04:00:00 aae-slurm submit --dry-run",
    )


if __name__ == "__main__":
    sys.exit(main())
