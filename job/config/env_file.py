"""An env file: lines AAE_NAME=value, as a shell or `docker --env-file` reads them; nothing in it is passed over in silence."""

import codecs
import difflib
import io
from pathlib import Path

from dotenv.parser import parse_stream

_LIKE = 0.85  # how like a setting's name another has to be to be taken for a slip: AEE_SEED, A_SEED
_SHOWN = 60


def read_env_file(path: Path, known: list[str]) -> tuple[dict[str, str | None], list[str]]:
    """The variables of a file, and every mistake in it, each with its line; `known` are the names of settings.

    Other programs' variables are let be, unless they look like a setting without its prefix, or like a slip.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return {}, [
            f"--env-file {path}: {error.strerror.lower() if error.strerror else error}; give the path of a file with "
            "AAE_NAME=value lines that can be read"
        ]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return {}, [f"--env-file {path}: is UTF-16; save it as UTF-8"]
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        line = content.splitlines()[number - 1].decode(errors="backslashreplace")
        return {}, [_mistake(path, number, line, "is not UTF-8; save the file as UTF-8")]
    variables: dict[str, str | None] = {}
    mistakes = []
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.string.lstrip()
        number = binding.original.line + binding.original.string[: -len(line) or None].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            mistakes.append(_mistake(path, number, line, "is no assignment; write AAE_NAME=value"))
        elif binding.key is not None:
            variables[binding.key] = binding.value
            meant = _meant(binding.key, known)
            if meant is not None:
                mistakes.append(_mistake(path, number, line, f"is no setting; did you mean {meant}?"))
    return variables, mistakes


def _meant(name: str, known: list[str]) -> str | None:
    """The setting that another name looks like, without AAE_ or mistyped; None for one that is nobody's slip."""
    if name in known or name.startswith("AAE_"):
        return None  # that is told wherever it comes from
    plain = name.upper().replace("-", "_").replace(".", "_")
    if f"AAE_{plain}" in known:
        return f"AAE_{plain}"
    return next(iter(difflib.get_close_matches(plain, known, n=1, cutoff=_LIKE)), None)


def _mistake(path: Path, number: int, line: str, what: str) -> str:
    shown = line.strip().splitlines()[0] if line.strip() else ""
    return f"--env-file {path}, line {number}: {shown[:_SHOWN]!r} {what}"
