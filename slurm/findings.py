"""What a check has found, and where one from a node lies: `<AAE_RUNS_DIR>/.check/<what is asked, as a hash>/`."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from job.rundir.small_file import DamagedError, names_in, read_json

FORMAT = 1
State = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True)
class Line:
    """What was looked at, how it is, in a sentence, and a command or a setting that helps, None where nothing has to.

    `skipped` tells why it could not be looked at.
    """

    name: str
    state: State
    text: str
    next: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Its four keys."""
        return asdict(self)


_Content = TypeVar("_Content", bound=BaseModel)


class Request(BaseModel):
    """What the node is to look at: the settings and what Slurm is asked for, and what the login node sees of itself.

    `like` is what makes a step's time, for the findings to be found by; `nonce` shows that both see the same file.
    """

    format: int = FORMAT
    settings: dict[str, Any]
    slurm: dict[str, Any]
    like: dict[str, Any]
    nonce: str
    versions: dict[str, str]
    source_digest: str


class Findings(BaseModel):
    """What the node found: lines as a check prints them, and how fast it steps, None where that was not measured."""

    format: int = FORMAT
    nonce: str
    like: dict[str, Any]
    host: str
    job_id: str
    at: str
    lines: list[dict[str, Any]]
    device: str | None = None
    step_ms: float | None = None

    def as_lines(self) -> list[Line]:
        """The lines themselves."""
        return [Line(**{key: line.get(key) for key in ("name", "state", "text", "next")}) for line in self.lines]  # type: ignore[arg-type]


class CheckDir:
    """The folder of one question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slurm = path / "slurm"
        self.request_file = path / "request.json"
        self.findings_file = path / "findings.json"
        self.told_mark = path / "told"

    @classmethod
    def of(cls, runs_dir: Path, settings: dict[str, Any], slurm: dict[str, Any], source_digest: str) -> "CheckDir":
        """That of these settings, this request and this code."""
        asked = json.dumps([settings, slurm, source_digest], sort_keys=True).encode()
        return cls(runs_dir / ".check" / hashlib.sha256(asked).hexdigest()[:12])

    def findings(self) -> Findings | None:
        """What was found; None if nothing was yet, or it is damaged or of another version."""
        return _read(self.findings_file, Findings)

    def request(self) -> Request | None:
        """What was asked; None as for `findings`."""
        return _read(self.request_file, Request)


def _read(path: Path, kind: type[_Content]) -> _Content | None:
    try:
        return read_json(path, kind)
    except (DamagedError, OSError):
        return None


def findings_in(runs_dir: Path) -> Iterator[Findings]:
    """All that checks from nodes have found."""
    folder = runs_dir / ".check"
    try:
        names = sorted(names_in(folder))
    except OSError:
        return
    for name in names:
        findings = CheckDir(folder / name).findings()
        if findings is not None:
            yield findings
