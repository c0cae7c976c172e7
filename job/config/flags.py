"""A flag for each setting, named after its variable."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from job.config.sources import FIELDS, Configuration, flag, nearest, read_configuration, variable
from job.errors import UsageError


def add_settings(parser: argparse.ArgumentParser, fields: tuple[str, ...] = tuple(FIELDS)) -> None:
    """Add a flag for each setting, and --env-file."""
    group = parser.add_argument_group("settings (flag > environment > env file > recipe > default)")
    group.add_argument("--env-file", type=Path, metavar="FILE", help="file with AAE_NAME=value lines")
    for name in fields:
        field = FIELDS[name]
        default = "" if field.default is None else f" [{field.default}]"
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if _is_switch(field.annotation) else {}
        help_text = f"{variable(name)}: {field.description}{default}".replace("%", "%%")
        group.add_argument(flag(name), dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=help_text, **options)


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or any(isinstance(value, bool) for value in get_args(annotation))


@dataclass(frozen=True)
class Flags:
    """A command's own options, the settings given as flags, in texts, and what is wrong with the names of others."""

    options: argparse.Namespace
    values: dict[str, str]
    mistakes: list[str]

    def read_configuration(self, changes: Mapping[str, str] | None = None) -> Configuration:
        """The configuration, with further flags; raises SettingsError with every mistake."""
        return read_configuration(self.values | dict(changes or {}), self.options.env_file, mistakes=self.mistakes)


def read_flags(parser: argparse.ArgumentParser, arguments: list[str]) -> Flags:
    """The flags of a command line; an unknown one is a mistake of the configuration's. Raises UsageError on other words."""
    options, unknown = parser.parse_known_args(arguments)
    values = {name: vars(options)[name] for name in FIELDS if name in options}
    words = [word for word in unknown if not word.startswith("--")]
    if words and words == unknown:
        raise UsageError(f"{' '.join(words)!r} is neither a command nor a flag; see {parser.prog} --help")
    known = [flag(name) for name in FIELDS]
    names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    return Flags(options, values, [f"{name} is not a flag; did you mean {nearest(name, known)}?" for name in names])


def read_configuration_from(
    parser: argparse.ArgumentParser, arguments: list[str]
) -> tuple[argparse.Namespace, Configuration]:
    """A command's own options, and its configuration; an unknown flag is one more mistake in its SettingsError."""
    flags = read_flags(parser, arguments)
    return flags.options, flags.read_configuration()
