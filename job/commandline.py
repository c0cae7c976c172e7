"""The command line: how a command is run, and how its errors read. Loads nothing of the settings, so that looking is quick."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from job.errors import EXIT_FINISHED, EXIT_INTERRUPTED, AaeError, UsageError
from job.output import ReaderGoneError, end_with_reader, install
from job.rundir.find import find_run


@dataclass(frozen=True)
class Command:
    """A command: the module whose `run` takes its arguments and returns an exit code, and what it does, in a line.

    `looks` tells that all it is for is to be read: it ends, with 0, when nobody does any more.
    """

    module: str
    does: str
    looks: bool = False


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


def run_command(prog: str, commands: Mapping[str, Command], default: str, arguments: list[str]) -> int:
    """Run the command that the first argument names, else the module `default`; only that one is loaded.

    Returns its exit code, and tells an AaeError in one message on stderr.
    """
    install()
    named = commands.get(arguments[0]) if arguments else None
    module, rest = (named.module, arguments[1:]) if named else (default, arguments)
    end_with_reader(named is not None and named.looks)
    try:
        return int(import_module(module).run(rest))
    except AaeError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    except ReaderGoneError:
        return EXIT_FINISHED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        end_with_reader(False)  # the streams' last words


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, which becomes a RunDir."""
    parser.add_argument("run", type=find_run, metavar="RUN", help="a run's path, or its name under AAE_RUNS_DIR")


def path(text: str) -> Path:
    """The type of an argument that is a path: no shell expands the `~` of `--out=~/x`, which would become a folder of that name."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's own raises for a file that is called ~x


def duration(seconds: float) -> str:
    """A duration for people: 43 s, 2 min 05 s, 1 h 05 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def clock(moment: float) -> str:
    """A moment near now in seconds since the epoch, for people, in local time: 14:10, Thu 14:10, 17 Oct 14:10."""
    told, today = datetime.fromtimestamp(moment), datetime.now()
    days = abs((told.date() - today.date()).days)
    return f"{told:%H:%M}" if days == 0 else f"{told:%a %H:%M}" if days < 7 else f"{told.day} {told:%b %H:%M}"


def number_between(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number within bounds."""

    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    number.__name__ = f"number from {least:,} to {most:,}"  # how argparse names it in an error
    return number


count = number_between(1, 10_000)


def positive(text: str) -> float:
    """The type of an argument that is a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


positive.__name__ = "positive number"
