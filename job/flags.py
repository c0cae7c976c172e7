"""The command line: how a command is run, and a flag for each setting, named after its variable."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from job.errors import AaeError, UsageError
from job.rundir import find_run
from job.sources import FIELDS, Configuration, flag, nearest, read_configuration, variable


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


def add_settings(parser: argparse.ArgumentParser, fields: tuple[str, ...] = tuple(FIELDS)) -> None:
    """Add a flag for each setting, and --env-file."""
    group = parser.add_argument_group("settings (flag > environment > env file > default)")
    group.add_argument("--env-file", type=Path, metavar="FILE", help="file with AAE_NAME=value lines")
    for name in fields:
        field = FIELDS[name]
        default = "" if field.default is None else f" [{field.default}]"
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        help_text = f"{variable(name)}: {field.description}{default}".replace("%", "%%")
        group.add_argument(flag(name), dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=help_text, **options)


def read_configuration_from(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> tuple[argparse.Namespace, Configuration]:
    """A command's own options, and its configuration; an unknown flag is one more mistake in its SettingsError."""
    options, unknown = parser.parse_known_args(arguments)
    values = {name: vars(options)[name] for name in FIELDS if name in options}
    words = [word for word in unknown if not word.startswith("--")]
    if words and words == unknown:
        raise UsageError(f"{' '.join(words)!r} is neither a command nor a flag; see {parser.prog} --help")
    known = [flag(name) for name in FIELDS]
    names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    mistakes = [f"{name} is not a flag; did you mean {nearest(name, known)}?" for name in names]
    return options, read_configuration(values, options.env_file, mistakes=mistakes)
