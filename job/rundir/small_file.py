"""Looking into the run directory, where absent, damaged, and not to be read now are three things."""

import stat
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

_Content = TypeVar("_Content", bound=BaseModel)


_ABSENT = (FileNotFoundError, NotADirectoryError)


class DamagedError(ValueError):
    """A file does not hold what was written to it, says its content."""


def read_json(path: Path, model: type[_Content]) -> _Content | None:
    """What a small JSON file holds, None if there is none; raises DamagedError, or OSError if it cannot be read now."""
    try:
        content = path.read_bytes()
    except _ABSENT:
        return None
    try:
        return model.model_validate(orjson.loads(content))  # strict, as pydantic's own parser is not: it takes NaN
    except orjson.JSONDecodeError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; raises OSError if that cannot be said now, which pathlib takes for no."""
    try:
        path.stat()
    except _ABSENT:
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; raises as `exists`."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except _ABSENT:
        return False


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted, none if there is none; raises OSError if it cannot be read now."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except _ABSENT:
        return []
