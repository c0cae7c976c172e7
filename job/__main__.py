"""`aae-job`: trains here and now, from the settings of the environment; the same command starts and resumes."""

import sys

from job.commandline import run_command
from job.commands import COMMANDS, TRAIN


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run_command("aae-job", COMMANDS, TRAIN, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
