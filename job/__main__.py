"""`aae-job`: trains here and now, from the settings of the environment; the same command starts and resumes."""

import sys

from job.loading import loading

with loading():
    from typing import NoReturn

    from job.commandline import run_command
    from job.commands import COMMANDS, TRAIN
    from job.output import leave


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run_command("aae-job", COMMANDS, TRAIN, sys.argv[1:] if arguments is None else arguments)


def command() -> NoReturn:
    """The command as it is typed: it leaves with its exit code."""
    leave(main())


if __name__ == "__main__":
    command()
