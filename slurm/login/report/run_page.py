"""report.html: one run on one page, from what has been collected of it and what its log tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from job.commandline import duration
from job.config.settings_file import Record
from job.log.course import Course
from job.rundir.status import Status
from slurm.login.keeping.film import evenly
from slurm.login.keeping.segments import Stretch
from slurm.login.report.charts import codes_of, curves_of, timeline_of
from slurm.login.report.page import data_uri, moment, render
from slurm.login.report.provenance import commands_of, settings_of
from slurm.login.report.verdict import WORDS, figures
from slurm.login.states import Shown

MAX_FRAMES = 100
MAX_PICTURES_BYTES = 3_400_000  # of lattices and samples together, which in base64 are a third more
MAX_ROWS = 50


@dataclass(frozen=True)
class Run:
    """All that the page of a run tells; `folder` is where its files have been collected, `lattices` are those there by step."""

    name: str
    folder: Path
    shown: Shown | None
    record: Record | None
    course: Course
    segments: list[Stretch]
    lattices: dict[int, Path]
    as_of: str

    @property
    def status(self) -> Status | None:
        """What status.json holds."""
        return self.shown.status if self.shown is not None else None


def run_page(run: Run) -> bytes:
    """The page as HTML; what of it cannot be made is told there."""
    status, course = run.status, run.course
    settings = run.record.settings if run.record is not None else {}
    samples = _content(run.folder / "samples.png")
    room = MAX_PICTURES_BYTES - len(samples or b"")
    frames, frames_left_out = _frames(run.lattices, room)
    changes = [(step, WORDS.get(verdict, verdict)) for step, verdict in course.verdicts]
    shown = run.segments[-MAX_ROWS:]
    codes, no_codes = _codes(run, settings)
    own, others = _settings(run.record)
    return render(
        "run.html",
        title=f"{run.name}: {run.shown.state if run.shown is not None else 'no status'}",
        name=run.name,
        as_of=run.as_of,
        state=run.shown.state if run.shown is not None else "",
        standing=_standing(run.shown),
        verdict=status.verdict if status is not None else None,
        advice=_advice(run.shown),
        next=run.shown.next if run.shown is not None else None,
        traceback=(status.crash or {}).get("traceback") if status is not None else None,
        judgement=_judgement(run, status),
        figures=figures(settings, course, run.shown.figures if run.shown is not None else {}),
        changes=changes[-12:],
        changes_left_out=max(0, course.verdicts.count - len(changes[-12:])),
        plots=curves_of(course),
        frames=frames,
        frames_left_out=frames_left_out,
        codes=codes,
        no_codes=no_codes,
        samples=data_uri(samples) if samples is not None else None,
        no_samples=_without(status),
        segments_words=_segments_words(run.segments),
        timeline=timeline_of(run.segments, run.as_of),
        segments=[_segment_row(one) for one in shown],
        segments_left_out=len(run.segments) - len(shown),
        settings_problem="settings.json cannot be read." if run.record is None else None,
        own_settings=own,
        other_settings=others,
        commands=commands_of(run.record) if run.record is not None else [],
        versions=_versions(run),
    )


def _standing(shown: Shown | None) -> str:
    if shown is None:
        return "Nothing is known of how it stands: it has no status.json."
    status = shown.status
    steps = f"step {status.step:,}" + (
        f" of {status.total_steps:,}" if status.total_steps else ", of how many is not known"
    )
    at = moment(status.updated_at)
    words = {
        "finished": f"Finished at {at}: {steps}.",
        "failed": f"Failed at {at}, {steps}.",
        "running": f"Running: {steps}, as of {at}, its last sign of life."
        + (f" About {duration(status.eta_s)} of training were left." if status.eta_s is not None else ""),
        "waiting": f"Not running, and not finished: {steps} at {at}; it can go on from there.",
        "cancelled": f"Cancelled at {at}: {steps}; it can go on from there.",
        "submitted": f"Submitted at {at}; {'it has not begun' if status.segment == 0 else steps}.",
        "lost": f"Lost: its last sign of life was at {at}, {steps}; it can go on from its newest checkpoint.",
    }
    return words[shown.state]


def _advice(shown: Shown | None) -> str | None:
    if shown is None:
        return None
    if shown.state == "failed":
        return f"Exit code {shown.status.exit_code}." + (
            " Mend what it names, then go on with it:" if shown.next else ""
        )
    return f"{shown.note[:1].upper()}{shown.note[1:]}." if shown.note else None


def _judgement(run: Run, status: Status | None) -> str | None:
    """The verdict on saturation as a sentence, None where there is none yet, or it stands above."""
    last = run.course.last.get("saturation", {})
    word = (status.saturation if status is not None else None) or last.get("verdict")
    if word is None:
        return None
    summary = (_summary(run.folder) or {}).get("saturation")
    reason, at = (summary.get("reason"), "") if isinstance(summary, dict) else (None, "")
    if reason is None and last.get("verdict") == word:
        reason, at = last.get("reason"), f" (at step {last['step']:,}, where it became so)"
    if reason and status is not None and str(reason) in (status.verdict or ""):
        return None
    words = WORDS.get(str(word), str(word))
    return f"{words[:1].upper()}{words[1:]}{f': {reason}{at}' if reason else ''}."


def _summary(folder: Path) -> dict[str, Any] | None:
    content = _content(folder / "summary.json")
    try:
        summary = orjson.loads(content) if content is not None else None
    except orjson.JSONDecodeError:
        return None
    return summary if isinstance(summary, dict) else None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


@dataclass(frozen=True)
class Frame:
    """A lattice of the page."""

    step: int
    uri: str


def _frames(lattices: dict[int, Path], room: int) -> tuple[list[Frame], str | None]:
    """As many lattices as there is room for, and in words how many are left out."""
    if not lattices:
        return [], None
    sizes = {step: path.stat().st_size for step, path in lattices.items()}
    most = min(MAX_FRAMES, len(sizes))
    while most and sum(sizes[step] for step in evenly(list(sizes), most)) > room:
        most -= 1
    chosen = evenly(list(sizes), most)
    frames = [Frame(step, data_uri(content)) for step in chosen if (content := _content(lattices[step])) is not None]
    if not frames:
        return [], f"Each of the {len(lattices):,} is too large for this page; all lie in lattices/."
    left_out = len(lattices) - len(frames)
    even = "evenly spaced in the logarithm of the step, and the last"
    return frames, f"{len(frames)} of {len(lattices):,} are shown, {even}; all lie in lattices/." if left_out else None


def _codes(run: Run, settings: dict[str, Any]) -> tuple[Any, str]:
    path = run.folder / "codes.npz"
    if not path.is_file():
        return None, _without(run.status)
    try:
        return codes_of(path, float(settings.get("prior_std", 1.0)), int(settings.get("latent_dim", 2))), ""
    except (OSError, ValueError, TypeError) as error:
        return None, f"codes.npz cannot be drawn ({error})"


def _without(status: Status | None) -> str:
    return "not in this run" if status is not None and status.state == "finished" else "there when the run is finished"


def _settings(record: Record | None) -> tuple[list[Any], list[Any]]:
    found = settings_of(record) if record is not None else []
    return [one for one in found if one.differs], [one for one in found if not one.differs]


def _segments_words(segments: Sequence[Stretch]) -> str:
    if not segments:
        return "It has not begun yet."
    lost = sum(one.steps_lost or 0 for one in segments)
    waits = [one.wait_s for one in segments if one.wait_s is not None]
    words = f"{len(segments):,} segment{'s' * (len(segments) > 1)}"
    words += f", {duration(sum(waits))} of waiting between them" if waits else ""
    return f"{words}; {f'{lost:,} steps were done again' if lost else 'no step was done twice'}."


def _segment_row(one: Stretch) -> dict[str, Any]:
    lasted = "-"
    if one.started and one.ended:
        lasted = duration(max(0.0, _seconds(one.ended) - _seconds(one.started)))
    first, last = one.from_step, one.last_step
    lost = f"{one.steps_lost:,} steps, {duration(one.seconds_lost or 0)}" if one.steps_lost else "nothing"
    return {
        **vars(one),
        "lasted": "goes on" if one.started and not one.ended else lasted,
        "steps": f"{first:,} to {last:,}" if first is not None and last is not None else "-",
        "lost": "-" if one.steps_lost is None else lost,
    }


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _versions(run: Run) -> list[tuple[str, str]]:
    start = run.course.last.get("resumed") or run.course.last.get("started") or {}
    found = start.get("versions")
    versions = found if isinstance(found, dict) else run.record.versions if run.record is not None else {}
    told = [(str(name), str(value)) for name, value in versions.items()]
    revision = run.record.source_revision if run.record is not None else None
    told += [("source revision", revision)] if revision else []
    device = run.status.device if run.status is not None and run.status.device else start.get("device")
    told += [("device", str(device))] if device else []
    return told + ([("CPU threads", str(start["num_threads"]))] if start.get("num_threads") else [])
