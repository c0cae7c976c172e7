"""`aae-job verify`: reads and checks every checkpoint, the event log and `final/` of a run; changes nothing."""

import hashlib
import json
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import orjson
from pydantic import BaseModel, ValidationError

from job.checkpoints.checkpoint import read_checkpoint
from job.errors import AaeError
from job.log.events import ADAPTER
from job.log.reader import merged_records, read_lines
from job.rundir.cancel import CancelMark
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.small_file import DamagedError, exists, read_json
from job.rundir.status import Status


@dataclass(frozen=True)
class Finding:
    """What was checked, whether it is good, and in words what was seen."""

    what: str
    good: bool
    seen: str


def verify_run(run_dir: RunDir) -> list[Finding]:
    """All findings, the good ones too."""
    return [*_checkpoints(run_dir), *_log(run_dir), *_small_files(run_dir), *_final(run_dir)]


def _checkpoints(run_dir: RunDir) -> list[Finding]:
    findings = []
    for step in run_dir.checkpoint_steps():
        path = run_dir.checkpoint_file(step)
        try:
            read_checkpoint(path)
        except (AaeError, OSError) as error:
            findings.append(Finding(run_dir.relative(path), False, str(error)))
        else:
            findings.append(Finding(run_dir.relative(path), True, "every byte as written"))
    for path in sorted(run_dir.checkpoints.glob("*.bad")):
        findings.append(
            Finding(run_dir.relative(path), False, "was damaged and is kept aside; remove it when you like")
        )
    return findings


def _log(run_dir: RunDir) -> list[Finding]:
    path = run_dir.events_file
    name = run_dir.relative(path)
    broken = []
    num_lines = end = 0
    for num_lines, line in enumerate(read_lines(path), start=1):
        begin, end = end, end + len(line)
        where = f"{name}:{num_lines}"
        try:
            orjson.loads(line)  # strict, as pydantic's own reader is not: it takes NaN
            ADAPTER.validate_json(line)
        except orjson.JSONDecodeError as error:
            broken.append(Finding(where, False, f"bytes {begin} to {end - 1} are not JSON: {error}"))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            broken.append(Finding(where, False, f"bytes {begin} to {end - 1} are no record: {key}: {first['msg']}"))
    if broken:
        return broken
    num_steps, last = 0, -1
    for record in merged_records(path, "step"):
        if record["step"] <= last:
            return [Finding(name, False, f"step records out of order or doubled at step {record['step']}")]
        num_steps, last = num_steps + 1, record["step"]
    return [Finding(name, True, f"{num_lines} records, {num_steps} of them step records that count")]


def _small_files(run_dir: RunDir) -> list[Finding]:
    """What readers step over where it is damaged: no finding for what is good."""
    numbers = takewhile(lambda number: exists(run_dir.claim_file(number)), count(1))
    claims: list[tuple[Path, type[BaseModel]]] = [(run_dir.claim_file(number), Segment) for number in numbers]
    findings = []
    others: list[tuple[Path, type[BaseModel]]] = [(run_dir.status_file, Status), (run_dir.cancel_mark, CancelMark)]
    for path, model in claims + others:
        try:
            read_json(path, model)
        except (DamagedError, OSError) as error:
            findings.append(Finding(run_dir.relative(path), False, str(error)))
    return findings


def _final(run_dir: RunDir) -> list[Finding]:
    if not run_dir.final.is_dir():
        return []
    try:
        digests = json.loads(run_dir.final_summary.read_bytes())["sha256"]
        changed = [n for n, d in digests.items() if hashlib.sha256((run_dir.final / n).read_bytes()).hexdigest() != d]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return [Finding(run_dir.relative(run_dir.final), False, f"cannot be checked: {error}")]
    if changed:
        return [Finding(f"final/{name}", False, "not the SHA-256 that summary.json names") for name in changed]
    return [Finding(run_dir.relative(run_dir.final), True, "every byte as written")]
