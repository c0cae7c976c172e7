"""`aae-slurm`: from the login node. Submits runs, tells how they are, reads their logs, collects what they made."""

import sys

from job.loading import loading

with loading():
    from typing import NoReturn

    from job.commandline import run_command
    from job.output import leave
    from slurm.login import COMMANDS, HELP


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run_command("aae-slurm", COMMANDS, HELP, sys.argv[1:] if arguments is None else arguments)


def command() -> NoReturn:
    """The command as it is typed: it leaves with its exit code."""
    leave(main())


if __name__ == "__main__":
    command()
