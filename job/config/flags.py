"""A flag for each setting, named after its variable."""

import argparse
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
