"""The README is held to the code: its tables, its commands, its pictures."""

import re
from pathlib import Path

import pytest

from job.commands import COMMANDS as JOB_COMMANDS
from job.config.settings import FREE, TOTAL
from job.config.sources import FIELDS, variable
from job.log.events import EVENTS, Event
from slurm.login import COMMANDS as SLURM_COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _settings_rows() -> list[str]:
    def on_resume(name: str) -> str:
        return "may grow" if name in TOTAL else "free" if name in FREE or name.startswith("slurm_") else "fixed"

    return [
        f"| `{variable(name)}` | {'' if f.default is None else f.default} | {on_resume(name)} | {f.description} |"
        for name, f in FIELDS.items()
    ]


def _event_rows() -> list[str]:
    rows = [f"| every record | `{name}` | {f.description} |" for name, f in Event.model_fields.items() if f.description]
    for event, model in EVENTS.items():
        rows.append(f"| **`{event}`** | | {(model.__doc__ or '').strip()} |")
        own = [name for name in model.model_fields if name not in Event.model_fields]
        rows += [f"| | `{name}` | {model.model_fields[name].description} |" for name in own]
    return rows


@pytest.mark.parametrize(("rows", "begins"), [(_settings_rows(), "| `AAE_"), (_event_rows(), "| every record")])
def test_tables_say_what_the_code_says(rows: list[str], begins: str) -> None:
    """Each table stands in the README line by line; if not, here is what belongs there."""
    assert "\n".join(rows) in README, "\n" + "\n".join(rows)
    assert begins in README


def test_every_command_is_shown() -> None:
    """Each command stands in a code block."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", README, re.DOTALL))
    for name in JOB_COMMANDS:
        assert f"aae-job {name}" in blocks
    for name in SLURM_COMMANDS:
        assert f"aae-slurm {name}" in blocks


def test_every_file_that_is_linked_exists() -> None:
    """Pictures and documents that the README points to are in the tree."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith(("http", "#"))]
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
