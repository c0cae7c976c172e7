"""The command line: how a command is run, and how its errors read. Loads nothing of the settings, so that looking is quick."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from job.errors import AaeError, UsageError
from job.rundir import find_run


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError instead of printing its usage, so that every error reads alike."""

    def __init__(self, prog: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def run_command(prog: str, command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run one command of a console script; returns its exit code, and tells an AaeError in one message on stderr."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # lines appear in a batch job's log at once
    try:
        return command(arguments)
    except AaeError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our lines has gone (`| head`); keep the interpreter from complaining about it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, which becomes a RunDir."""
    parser.add_argument("run", type=find_run, metavar="RUN", help="a run's path, or its name under AAE_RUNS_DIR")


def printable(text: str) -> str:
    """Foreign text with everything escaped that could steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
