"""What made a run: its settings with where each came from, and the command that makes the same run again."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from job.config.settings_file import Record
from job.config.sources import FIELDS, flag, variable

# Where files lie is not what a run is; the name is made from the settings where nobody has given one.
_PLACES = ("runs_dir", "data_dir")


@dataclass(frozen=True)
class Setting:
    """A setting as the page shows it."""

    name: str
    value: str
    default: str
    source: str
    differs: bool
    description: str


def settings_of(record: Record) -> list[Setting]:
    """All settings of a run, those of its allocation too; those that somebody or something has set first."""
    found = [_setting(record, name, value) for name, value in _values(record).items()]
    return sorted(found, key=lambda setting: not setting.differs)


def commands_of(record: Record) -> list[str]:
    """What to type to make the same run: here, and on a cluster where something was asked of Slurm."""
    given = {name: value for name, value in _values(record).items() if _is_given(record, name, value)}
    own = [_flag(name, value) for name, value in given.items() if not name.startswith("slurm_")]
    asked = [_flag(name, value) for name, value in given.items() if name.startswith("slurm_")]
    return [" ".join(["aae-job", *own])] + ([" ".join(["aae-slurm submit", *own, *asked])] if asked else [])


def _values(record: Record) -> dict[str, Any]:
    return {**record.settings, **{f"slurm_{name}": value for name, value in record.slurm.items()}}


def _is_given(record: Record, name: str, value: Any) -> bool:
    """Whether a setting has to be typed. The first start fills in the number of threads, which the bytes depend on."""
    if name in _PLACES or name not in FIELDS:
        return False
    source = record.sources.get(name, "default")
    return source not in ("default", "recipe") or (name == "num_threads" and value is not None)


def _flag(name: str, value: Any) -> str:
    return f"{flag(name)}={shlex.quote(_text(value))}"


def _setting(record: Record, name: str, value: Any) -> Setting:
    field = FIELDS.get(name)
    source = record.sources.get(name, "default")
    default = field.get_default(call_default_factory=True) if field is not None else None
    description = field.description if field is not None else "Not known to this version."
    return Setting(variable(name), _text(value), _text(default), source, source != "default", description or "")


def _text(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else str(value) if hasattr(value, "__fspath__") else json.dumps(value)
