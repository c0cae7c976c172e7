"""Where settings come from: flags, then the environment, then an env file, then the recipe, then the defaults."""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from job.config.allocation import Allocation
from job.config.env_file import read_env_file
from job.config.options import mistakes_in_options
from job.config.recipes import RECIPES
from job.config.settings import OF_AN_END, Settings
from job.errors import SettingsError

PREFIX = "AAE_"

# What a field's name begins with, and the class that holds it under the rest of its name.
SECTIONS: dict[str, type[BaseModel]] = {"": Settings, "slurm_": Allocation}
FIELDS: dict[str, FieldInfo] = {
    section + name: field for section, model in SECTIONS.items() for name, field in model.model_fields.items()
}


@dataclass(frozen=True)
class Configuration:
    """Validated settings, and for each one where its value came from: default, recipe, env-file, environment or flag."""

    settings: Settings
    allocation: Allocation
    sources: dict[str, str]


class _RunNames(BaseSettings, Settings):
    """How pydantic-settings names the variables of a run."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, enable_decoding=False, env_parse_none_str="none", frozen=True)


class _AllocationNames(BaseSettings, Allocation):
    """How pydantic-settings names the variables of an allocation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX + "SLURM_", enable_decoding=False, env_parse_none_str="none", frozen=True
    )


class _Variables(EnvSettingsSource):
    """Settings read from a mapping of AAE_* variables; an empty value counts as not set."""

    def __init__(self, names: type[BaseSettings], variables: Mapping[str, str | None]) -> None:
        self._variables = variables
        super().__init__(names)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars({k: v for k, v in self._variables.items() if k == k.upper()}, False, True, "none")


def variable(field: str) -> str:
    """Name of the environment variable of a setting."""
    return PREFIX + field.upper()


def flag(field: str) -> str:
    """Name of the command-line flag of a setting."""
    return "--" + field.replace("_", "-")


def spelt(value: Any) -> str:
    """A setting's value as one types it."""
    if isinstance(value, float):
        return json.dumps(value).replace("e+", "e")  # no plus: it becomes part of a name
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def nearest(name: str, known: list[str]) -> str:
    """The known name that is most like a mistyped one."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def read_configuration(
    flags: Mapping[str, str] | None = None,
    env_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    mistakes: list[str] | None = None,
) -> Configuration:
    """Merge and check all layers; `flags` maps field names to texts, `mistakes` are those found before.

    Raises SettingsError with every mistake: unknown names with the nearest real one, bad values with what is allowed.
    """
    environment = os.environ if environment is None else environment
    mistakes = list(mistakes or [])
    in_file: Mapping[str, str | None] = {}
    if env_file is not None:
        in_file, found = read_env_file(env_file, [variable(field) for field in FIELDS])
        mistakes += found
    known = (
        OF_AN_END if environment.keys() >= set(OF_AN_END) else ()
    )  # alone AAE_RUN_DIR is a slip, all three are no accident
    mistakes += _unknown_names(environment, "environment", known) + _unknown_names(in_file, "env-file")

    if environment.get("SLURM_CLUSTERS") and not environment.get("AAE_SLURM_CLUSTER"):
        environment = {**environment, "AAE_SLURM_CLUSTER": environment["SLURM_CLUSTERS"]}
    layers: dict[str, Mapping[str, Any]] = {
        "env-file": _read_variables(in_file),
        "environment": _read_variables(environment),
        "flag": {k: None if v == "none" else v for k, v in (flags or {}).items()},
    }
    recipe = next((layer["recipe"] for layer in reversed(layers.values()) if "recipe" in layer), "lecture")
    layers = {"recipe": RECIPES.get(recipe, {}), **layers}  # an unknown one is among the mistakes
    values: dict[str, Any] = {}
    sources = dict.fromkeys(FIELDS, "default")
    for source, layer in layers.items():
        values |= layer
        sources |= dict.fromkeys(layer, source)
    sections: dict[str, BaseModel] = {}
    for section, model in SECTIONS.items():
        own = {name: values[section + name] for name in model.model_fields if section + name in values}
        try:
            sections[section] = model(**own)
        except ValidationError as error:
            mistakes += [_mistake(section, dict(e), values, sources) for e in error.errors()]
    settings, allocation = sections.get(""), sections.get("slurm_")
    if isinstance(allocation, Allocation):
        mistakes += mistakes_in_options(allocation)
    if mistakes:
        raise SettingsError(mistakes)
    assert isinstance(settings, Settings)
    assert isinstance(allocation, Allocation)
    return Configuration(settings, allocation, sources)


def _read_variables(variables: Mapping[str, str | None]) -> dict[str, Any]:
    run, allocation = _Variables(_RunNames, variables)(), _Variables(_AllocationNames, variables)()
    return {**run, **{f"slurm_{name}": value for name, value in allocation.items()}}


def _unknown_names(variables: Mapping[str, str | None], source: str, others: tuple[str, ...] = ()) -> list[str]:
    known = [variable(field) for field in FIELDS]
    return [
        f"{name}={variables[name]} ({source}): not a setting; did you mean {nearest(name.upper(), known)}?"
        for name in sorted(variables)
        if name.upper().startswith(PREFIX) and name not in known and name not in others
    ]


def _mistake(section: str, error: dict[str, Any], values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    field = section + str(error["loc"][0])
    where = flag(field) if sources[field] == "flag" else sources[field]
    default = FIELDS[field].default
    return f"{variable(field)}={values[field]} ({where}): {message[0].lower()}{message[1:]} (default: {default})"
