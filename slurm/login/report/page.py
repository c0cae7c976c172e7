"""How a page is made: templates that escape all foreign text, one style, one script, and a policy that allows no more."""

import base64
import hashlib
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from job.commandline import duration
from job.machine import source_digest
from job.output import escaped, size

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> bytes:
    """A page as it is mailed: everything in one file, nothing fetched."""
    style, script = _part("style.css"), _part("frames.js")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'"
    )
    page = (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=style,
            script=script,
            **context,
        )
    )
    return page.encode()


@cache
def made_by() -> str:
    """What changes whenever pages would come out differently: the code and the templates."""
    digest = hashlib.sha256(source_digest().encode())
    for path in sorted(_FOLDER.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def moment(time: str | None) -> str:
    """A time for people: 2026-11-27 04:05:39 UTC."""
    if time is None:
        return "-"
    try:
        return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return time


@cache
def _part(name: str) -> str:
    return (_FOLDER / name).read_text()


def _csp_hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "duration": duration, "size": size, "number": lambda n: f"{n:,}"}
    return environment


def _harmless(value: Any) -> Any:
    """What could steer a terminal or turn the order of letters stands as in JSON."""
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value
