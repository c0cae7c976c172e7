"""`aae-slurm watch`: what it makes of a run's files, and what fits into how much room."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.cells import cell_len

import slurm.login.watch.look
from job.config.allocation import Allocation
from job.log.series import Series
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import Status
from slurm.login.states import Shown
from slurm.login.watch.course import Course
from slurm.login.watch.look import Look, Watched
from slurm.login.watch.queue import RareQueue
from slurm.login.watch.screen import ink
from slurm.login.watch.sparkline import ASCII, BLOCKS, Ink, bar, sparkline
from slurm.login.watch.view import page_of_run, page_of_sweep
from slurm.login.watch.words import following, segment_words, state_words
from slurm.scheduler.queue import Job

LOSSES = {"discriminator_loss": 1.38, "generator_loss": 0.69, "d_prior": 0.5, "d_code": 0.4, "d_accuracy": 0.55}


def record(event: str, step: int, segment: int = 1, **fields: Any) -> dict[str, Any]:
    """A record of the log, of now."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if event == "step":
        fields = {"epoch": 1, "reconstruction_loss": 1 / (step + 1), **LOSSES, "images_per_s": 1000.0, **fields}
    return {"time": time, "event": event, "segment": segment, "step": step, **fields}


def append(run_dir: RunDir, *records: dict[str, Any]) -> None:
    """Add records to a run's log."""
    run_dir.path.mkdir(parents=True, exist_ok=True)
    with run_dir.events_file.open("ab") as file:
        file.write(b"".join(orjson.dumps(one) + b"\n" for one in records))


def steps_of(course: Course) -> list[int]:
    """The steps of which a course draws a loss."""
    return [step for step, _ in course.curves["reconstruction_loss"].points()]


@pytest.mark.parametrize("drawn_with", [BLOCKS, ASCII])
def test_a_sparkline_falls_as_its_curve_does(drawn_with: Ink) -> None:
    """The highest is at the top, the lowest at the bottom, over as many columns as there is room for or points there are."""
    falling = [(step, math.exp(-step / 30)) for step in range(100)]
    line = sparkline(falling, 20, drawn_with)
    heights = [drawn_with.levels.index(character) for character in line]
    assert (len(line), heights[0], heights[-1]) == (20, 7, 0)
    assert heights == sorted(heights, reverse=True)
    assert len(sparkline(falling[:3], 20, drawn_with)) == 3
    assert sparkline([], 20, drawn_with) == ""
    assert len(bar(0.5, 10, drawn_with)) == 10


def test_a_sparkline_shows_on_which_side_of_its_reference_a_curve_is() -> None:
    """A flat curve far below it is at the bottom, one at it is at the top."""
    assert set(sparkline([(step, 0.1) for step in range(9)], 9, BLOCKS, reference=1.386)) == {"▁"}
    assert sparkline([(0, 0.1), (1, 1.386)], 9, BLOCKS, reference=1.386) == "▁█"


def test_a_series_forgets_what_is_done_again() -> None:
    """Also where its buckets hold many steps; the last value is then one that is left."""
    series = Series()
    for step in range(5000):
        series.add(step, float(step))
    series.cut(1234)
    points = list(series.points())
    assert points[-1] == series.last
    assert series.last is not None
    assert 1200 < series.last[0] <= 1234


def test_records_that_a_resume_supersedes_are_not_drawn(tmp_path: Path) -> None:
    """Neither those read at first nor those that are superseded while one watches; of a torn line nothing is seen."""
    run_dir, course = RunDir(tmp_path / "run"), Course(RunDir(tmp_path / "run"))
    append(run_dir, *(record("step", step) for step in range(10, 110, 10)))
    append(run_dir, record("resumed", 60, 2, from_step=60, host="n2", previous="died"), record("step", 70, 2))
    assert course.read() == []
    assert steps_of(course) == [10, 20, 30, 40, 50, 60, 70]
    append(run_dir, record("step", 80, 2), record("evaluation", 80, 2, energy_distance=0.5, energy_distance_q99=0.1))
    append(run_dir, record("resumed", 60, 3, from_step=60, host="n1", previous="died"))
    with run_dir.events_file.open("ab") as file:
        file.write(b'{"time":')
    assert [one["event"] for one in course.read()] == ["step", "evaluation", "resumed"]
    assert steps_of(course) == [10, 20, 30, 40, 50, 60]
    assert not course.evaluations
    assert "went on at step 60 on n1" in course.news[-1][1]


def test_another_log_in_its_place_is_read_anew(tmp_path: Path) -> None:
    """Replaced by another file, or cut short."""
    run_dir, course = RunDir(tmp_path / "run"), Course(RunDir(tmp_path / "run"))
    append(run_dir, *(record("step", step) for step in (10, 20, 30)))
    course.read()
    run_dir.replace(run_dir.events_file, orjson.dumps(record("step", 15)) + b"\n")
    course.read()
    assert steps_of(course) == [15]
    run_dir.events_file.write_bytes(b"")
    course.read()
    assert steps_of(course) == []


def test_of_a_long_log_little_is_read_and_none_that_does_not_count(tmp_path: Path) -> None:
    """Blocks of all of it, all of its end; what a lower segment did beyond a resume that was not read is known from its claim."""
    run_dir = RunDir(tmp_path / "run")
    append(run_dir, *(record("step", step) for step in range(10, 40_010, 10)))
    append(run_dir, *(record("step", step, 2) for step in range(30_000, 60_010, 10)))
    claim = Segment(owner=Owner.this_process(), from_step=29_995)
    run_dir.replace(run_dir.claim_file(2), claim.model_dump_json().encode())
    course = Course(run_dir, tail_bytes=2**14, num_blocks=20)
    course.read()
    steps = steps_of(course)
    assert steps == sorted(steps)
    assert steps[-1] == 60_000
    assert 200 < len(steps) < 1500
    assert steps[0] == 10
    by_segment = dict(course.curves["reconstruction_loss"].points())
    assert len(by_segment) == len(steps)


def look_at(tmp_path: Path, *, state: str = "running", reason: str | None = None, **changes: Any) -> Look:
    """A run as a watch sees it: 120 steps of 1,000, in its second segment."""
    run_dir, course = RunDir(tmp_path / "a-run"), Course(RunDir(tmp_path / "a-run"))
    if not run_dir.events_file.exists():
        append(run_dir, *(record("step", step) for step in range(1, 120)))
        append(run_dir, record("evaluation", 100, energy_distance=0.5, energy_distance_q99=0.0033))
        append(run_dir, record("lattice", 100, file="lattices/step-000000000100.png"))
        append(run_dir, *(record("warning", step, message="a\x1b[31m [red]message " * 9) for step in range(120, 126)))
    course.read()
    now = datetime.now(UTC)
    kept: dict[str, Any] = {
        "state": state, "segment": 2, "step": 120, "total_steps": 1000, "job_id": "5", "host": "n1", "step_ms": 60_000,
        "checkpoint_step": 120, "progress_at": now.isoformat(), "updated_at": now.isoformat(), "waits_s": [100, 140],
        "limit_at": (now + timedelta(hours=1)).isoformat(), "saturation": "not_yet", "verdict": "a\x1b[31m verdict " * 20,
    }  # fmt: skip
    status = Status.model_validate(kept | changes.pop("status", {}))
    shown = Shown(run_dir, status, status.state, "", False, "5", reason, None)
    vars(shown)["allocation"] = Allocation(time="2:00:00")  # as its settings.json would tell
    return Look(run_dir, course, shown, **changes)


@pytest.mark.parametrize("drawn_with", [BLOCKS, ASCII])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 15), (200, 50), (30, 5), (1, 1)])
def test_a_view_fits_into_its_terminal(tmp_path: Path, width: int, height: int, drawn_with: Ink) -> None:
    """Nothing wraps, nothing scrolls, no foreign text steers the terminal; what matters most is there as long as it can be."""
    lines = [line.plain for line in page_of_run(look_at(tmp_path), width, drawn_with).fitted(height)]
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert drawn_with is BLOCKS or text.isascii()
    if height >= 15:
        for word in (
            "a-run  running",
            "step 120 of 1,000",
            "2 of about",
            "reconstruction  0.0083",
            "(1.386)",
            "outside",
            "verdict",
        ):
            assert word in text
    if height >= 24:
        assert "[red]message" in text
        assert len([line for line in lines if "warning" in line]) == 5
        assert "lattices/step-000000000100.png" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 15)])
def test_a_sweep_is_a_row_a_run_as_far_as_there_is_room(tmp_path: Path, width: int, height: int) -> None:
    """Those that are finished make room for those that train, which make it for those that need a person."""
    looks = [look_at(tmp_path, state="finished") for _ in range(30)] + [look_at(tmp_path) for _ in range(3)]
    lines = [line.plain for line in page_of_sweep("night", looks, width, height, BLOCKS).fitted(height)]
    assert lines[0] == "night  sweep of 33: 30 finished, 3 running"
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert len([line for line in lines if "running" in line]) == 1 + 3
    assert lines[-1].startswith("and ")


@pytest.mark.parametrize(
    ("state", "reason", "changes", "words"),
    [
        ("running", None, {}, "training on n1"),
        ("running", None, {"progress_at": None}, "starting on n1"),
        ("running", None, {"updated_at": -50}, "training on n1; no sign of life for 5"),
        ("waiting", None, {"reason": "time_limit"}, "requeued: Slurm starts it again in about "),
        ("waiting", "BeginTime", {"updated_at": -500}, "requeued: Slurm starts it again any moment now; waits so far"),
        ("waiting", "Priority", {}, "pending (Priority), for TIME; waits so far: 1 min 40 s, 2 min 20 s"),
        ("submitted", "JobHeldUser", {"waits_s": []}, "pending (JobHeldUser), for TIME: held by its user; next: scontrol"),
        ("finished", None, {"verdict": "all done"}, "all done"),
    ],
)  # fmt: skip
def test_each_state_is_told_in_a_sentence(
    tmp_path: Path, state: str, reason: str | None, changes: Any, words: str
) -> None:
    """A pause between two segments is a state like any other."""
    now = datetime.now(UTC)
    if "updated_at" in changes:
        changes = changes | {"updated_at": (now + timedelta(seconds=changes["updated_at"])).isoformat()}
    note = {
        "Priority": "pending (Priority)",
        "JobHeldUser": "pending (JobHeldUser): held by its user; next: scontrol release 5",
    }
    job = Job("5", "5", f"{now.timestamp() - 90:.0f}", "PENDING", reason or "", "") if reason else None
    look = look_at(tmp_path, state=state, reason=reason, status=changes, note=note.get(reason or "", ""), job=job)
    assert re.sub(r"(?<=, for )1 min [345]\d s", "TIME", state_words(look)).startswith(words)


def test_segments_are_counted_over_the_whole_run(tmp_path: Path) -> None:
    """880 steps of a minute: 58 of them in what is left of this allocation, 118 in each later one of two hours."""
    assert segment_words(look_at(tmp_path)) == "2 of about 9"
    assert segment_words(look_at(tmp_path, ended=True)) == "2"
    assert following([look_at(tmp_path)], None) == [f"aae-slurm watch {tmp_path}/a-run"]
    assert following([look_at(tmp_path, ended=True)], "night")[0] == f"aae-slurm collect {tmp_path / 'night'} results"


def test_what_cannot_be_seen_now_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is away, a file that cannot be read: said, and looked for again; a directory that stays away is an end."""
    run_dir = look_at(tmp_path).run_dir
    seen = look_at(tmp_path).shown
    assert seen is not None
    run_dir.replace(run_dir.status_file, seen.status.model_dump_json().encode())
    watched, queue = Watched(run_dir, Course(run_dir)), RareQueue()
    assert state_words(watched.again(queue)) == "training on n1"
    log = run_dir.events_file.rename(tmp_path / "log")
    run_dir.events_file.mkdir()
    assert state_words(watched.again(queue)).startswith("cannot be read now: Is a directory; as it was ")
    run_dir.events_file.rmdir()
    log.rename(run_dir.events_file)
    assert state_words(watched.again(queue)) == "training on n1"
    run_dir.path.rename(tmp_path / "away")
    look = watched.again(queue)
    assert (look.ended, look.state) == (False, "running")
    assert state_words(look).startswith("its directory is not there; as it was ")
    monkeypatch.setattr(slurm.login.watch.look, "PATIENCE_S", 0.0)
    look = watched.again(queue)
    assert (look.ended, look.state, look.needs_person) == (True, "not there", True)


@pytest.mark.parametrize(("name", "value", "expected"), [("LANG", "C", ASCII), ("LC_ALL", "POSIX", ASCII)])
def test_a_locale_without_blocks_gets_letters(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: Ink
) -> None:
    """Python itself takes UTF-8 for the locale C, the terminal need not."""
    monkeypatch.setattr(Path, "read_bytes", lambda _: f"{name}={value}\0TERM=xterm".encode())
    assert ink() is expected
