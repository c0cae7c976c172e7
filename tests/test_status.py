"""What `aae-slurm status` prints: a run on a line of 80 columns, all the rest of a named one, and what programs read."""

import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from commands import Commands

from job.commandline import clock
from job.config.settings_file import Record
from job.config.sources import read_configuration
from job.errors import UsageError
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import Status, iso, write_status
from slurm.login.overview import HEADER, Line, layout, left_of, line_of
from slurm.login.states import show
from slurm.login.status import run
from slurm.scheduler.queue import Job
from slurm.scheduler.reasons import Category, category_of

EVALUATION = {
    "step": 500, "reconstruction_bce": 0.2101, "reconstruction_slope_percent": -0.2, "reconstruction_trend_p": 0.3,
    "d_accuracy": 0.55, "discriminator_loss": 1.38, "energy_distance": 0.004, "energy_distance_q99": 0.0033,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
    monkeypatch.setenv("AAE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.delenv("COLUMNS", raising=False)
    commands.queue()


def _run(
    name: str, *, submitted: bool = True, age_s: float = 1, still_s: float | None = None, **values: object
) -> RunDir:
    flags = {"run_name": name, "max_steps": "1000", "evaluate_every_steps": "50", "slurm_time": "01:00:00"}
    configuration = read_configuration(flags)
    run_dir = RunDir(configuration.settings.run_dir)
    run_dir.path.mkdir(parents=True)
    Record.of(configuration).write(run_dir)
    updated_at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    told = {"state": "running", "step": 500, "total_steps": 1000, "segment": 1, "updated_at": updated_at, **values}
    if still_s is not None:
        told["progress_at"] = iso(time.time() - still_s)
    if submitted:
        told = {"job_id": "5", **told}
        run_dir.slurm.mkdir()
    write_status(run_dir, Status.model_validate(told))
    owner = Owner.this_process("5" if submitted else None).model_copy(update={"host": "elsewhere"})
    run_dir.replace(run_dir.claim_file(1), Segment(owner=owner, from_step=0).model_dump_json().encode())
    return run_dir


def _job(run_dir: RunDir, state: str, reason: str = "None", starts_at: float | None = None) -> Job:
    return Job("5", "5", "0", state, reason, f"{run_dir.path}/slurm/5_submission.sh", None, starts_at, "n7")


@pytest.mark.parametrize(
    ("values", "job", "full", "short"),
    [
        ({"step_ms": 100.0}, ("RUNNING",), "50 s", "50 s"),
        ({}, ("RUNNING",), "-", "-"),
        ({"step_ms": 100.0}, ("SUSPENDED",), "suspended", "suspended"),
        ({"still_s": 302}, ("RUNNING",), "no step 5 min", "no step"),
        ({"age_s": 300}, ("RUNNING",), "silent 5 min", "silent"),
        ({"state": "submitted", "segment": 0}, ("PENDING", "Priority"), "resources", "resources"),
        ({"state": "submitted", "segment": 0}, ("PENDING", "Priority", time.time() + 9e5), "resources, ", "resources"),
        ({"state": "waiting", "step_ms": 100.0}, ("PENDING", "BeginTime", 1.0), "5. s, other", "5. s"),
        ({"state": "waiting"}, ("PENDING", "JobHeldUser"), "held", "held"),
        ({"state": "submitted", "segment": 0}, ("RUNNING",), "starting", "starting"),
        ({"state": "waiting"}, None, "no job", "no job"),
        ({}, ("FAILED",), "no process", "no process"),
        ({"state": "failed", "reason": "out_of_memory"}, None, "out_of_memory", "out_of_memor"),
        ({"state": "finished"}, None, "-", "-"),
        ({"state": "cancelled"}, None, "-", "-"),
    ],
)
def test_one_column_says_how_long_or_why_not(
    values: dict[str, object], job: tuple[object, ...] | None, full: str, short: str
) -> None:
    """The time left, the reason to wait, or what is wrong; and the same in fewer characters."""
    run_dir = _run("a", **values)  # type: ignore[arg-type]
    shown = show(run_dir, [_job(run_dir, *job)] if job is not None else [])  # type: ignore[arg-type]
    assert shown is not None
    found = left_of(shown)
    assert re.match(full, found[0]), found
    assert re.fullmatch(short, found[1]), found
    assert len(found[1]) <= 12


@pytest.mark.parametrize("verdict", ["saturated", "false_saturation", "discriminator_winning"])
def test_a_line_fits_a_terminal_and_ends_with_the_whole_name(verdict: str) -> None:
    """With every verdict and long reasons; only a name that is long itself reaches beyond, and none is cut when narrow."""
    lines = [
        Line("submitted", "100%", "0.2101", verdict, ("123 h 05 min, dependency", "123 h 05 min"), "digits-2d-seed0-44136fa"),
        Line("finished", "5%", "-", "-", ("-", "-"), "x" * 120),
    ]  # fmt: skip
    header, first, second = layout(lines, 80)
    assert header.split() == list(HEADER)
    assert len(first) <= 80
    assert first.split()[:4] == ["submitted", "100%", "0.2101", verdict]
    assert second.endswith(" " + "x" * 120)
    assert [line.split()[-1] for line in layout(lines, 20)] == [header.split()[-1], first.split()[-1], "x" * 120]


def test_colours_are_for_terminals_that_have_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when piped, for TERM=dumb, or where NO_COLOR says so."""
    _run("a", state="failed", submitted=False)
    monkeypatch.setenv("TERM", "xterm")
    for is_terminal, name, value, coloured in (
        (False, "X", "", False),
        (True, "X", "", True),
        (True, "NO_COLOR", "1", False),
        (True, "TERM", "dumb", False),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            patch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal, raising=False)
            run([])
        assert ("\x1b[31m" in capsys.readouterr().out) == coloured


def test_states_are_chosen_and_columns_sorted_by(capsys: pytest.CaptureFixture[str]) -> None:
    """Each run on its own line; a word that is no state is refused with the words."""
    _run("a", state="finished", submitted=False, step=1000, evaluation=EVALUATION)
    _run("b", state="failed", submitted=False, step=100)
    _run("c", state="cancelled", submitted=False, step=700, evaluation={**EVALUATION, "reconstruction_bce": 0.1})
    for arguments, names, code in (
        (["--state", "finished,cancelled"], ["a", "c"], 0),
        (["--sort", "done"], ["b", "c", "a"], 1),
        (["--sort", "bce"], ["c", "a", "b"], 1),
        (["--state", "lost"], [], 0),
    ):
        assert run(arguments) == code
        out = capsys.readouterr().out
        assert [line.split()[-1] for line in out.splitlines()[1:]] == names
    assert out.startswith("no runs that are lost in ")
    with pytest.raises(UsageError, match=r"'gone' is no state; there are submitted, .*, lost"):
        run(["--state", "gone"])


def test_a_named_run_tells_all_in_sentences(commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    """Quality against what it should be, signs of life, job and node, what is ahead and what was used."""
    limit_at = iso(time.time() + 1830)
    run_dir = _run(
        "a", step_ms=10_000.0, evaluation=EVALUATION, checkpoint_step=480, limit_at=limit_at, pid=9, host="h", steps_lost=3,
        waits_s=[100, 200, 120], peak_memory_bytes=2**30, progress_at=iso(time.time() - 2),
    )  # fmt: skip
    commands.queued(_job(run_dir, "RUNNING"))
    assert run(["a"]) == 0
    told = capsys.readouterr().out
    for words in (
        "500 of 1,000; newest checkpoint at step 480; the last 20 are not saved yet",
        "at step 500: BCE 0.2101 a pixel, flat: -0.20 % over 10 windows",
        "tells 55% right, loss 1.380 (50% and 1.386 when it cannot tell)",
        "energy distance from the prior 0.0040, outside its null band (up to 0.0033)",
        "5 RUNNING on node n7; its time is up in 30 min",
        "about 1 more segment with waits of 2 min 00 s between two (as met so far); finished about ",
        "1 segment; 3 steps lost; 3 waits between segments, 7 min 00 s in all",
        "at most 1,024 MiB of memory of the 4,096 that it asked for",
    ):
        assert words in told
    assert re.search(r" 9 on host h; its heart beat \d s ago, its step grew \d s ago\n", told)
    assert run(["a", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["node"], one["reconstruction_bce"], one["forecast"]["segments"]) == ("n7", 0.2101, 2)
    assert (one["pending_category"], one["estimated_start"], one["detectors"], one["next"]) == (None, None, [], None)
    assert one["ends_at"] > one["updated_at"]


def test_a_run_whose_process_was_killed_says_which_steps_are_lost(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the next segment has counted them."""
    commands.queued(_job(_run("a", state="waiting", reason="killed", checkpoint_step=480), "PENDING", "BeginTime"))
    assert run(["a"]) == 0
    assert (
        "newest checkpoint at step 480; the last 20 are lost, and done again when the run goes on"
        in capsys.readouterr().out
    )


def test_a_job_that_was_cancelled_while_it_waited_has_nothing_to_be_mended(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has cancelled it: no job in the queue."""
    run_dir = _run("a", state="submitted", segment=0, step=0)
    run_dir.claim_file(1).unlink()
    (run_dir.slurm / "5_submission.sh").touch()
    commands.queued(_job(run_dir, "CANCELLED"))
    assert run(["a"]) == 1
    told = capsys.readouterr().out
    assert "no job in the queue: submit again" in told
    assert "mend" not in told


def test_what_is_damaged_or_foreign_harms_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged status or settings.json, a verdict that would steer the terminal, NaN, a run of no steps."""
    damaged, bare, foreign = (
        _run(name, state="failed", submitted=False, verdict="a\nb\x1b[2J") for name in ("d", "s", "f")
    )
    damaged.status_file.write_bytes(b'{"state": "running", "step": NaN}')
    bare.settings_file.write_bytes(b"{")
    write_status(_run("zero", submitted=False, state="finished"), Status(state="finished", total_steps=0))
    assert run([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["RUN", "d", "f", "s", "zero"]
    assert lines[-1].split()[:3] == ["finished", "-", "-"]
    assert run(["d", "s", "f", "zero"]) == 1
    told = capsys.readouterr().out
    assert "a b\x1b[2J" in told  # `job.output` escapes it on its way out
    assert "settings.json is damaged" in told
    assert foreign.path.name in told
    assert run(["--json"]) == 1
    assert [one["next"] is None for one in orjson.loads(capsys.readouterr().out)] == [False, False, True, True]


def test_a_run_of_an_earlier_version_tells_its_figures_from_the_end_of_its_log() -> None:
    """Where status.json does not hold them."""
    run_dir = _run("a", submitted=False, state="finished")
    head = {"time": "2026-01-01T00:00:00.000Z", "segment": 1}
    records = [
        {**head, "event": "step", "step": n, "d_accuracy": 0.7, "discriminator_loss": 1.2} for n in range(1, 500)
    ]
    records.insert(
        400, {**head, "event": "evaluation", "step": 400, "reconstruction_bce": 0.25, "energy_distance": None}
    )
    run_dir.events_file.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    shown = show(run_dir, [])
    assert shown is not None
    assert line_of(shown).bce == "0.2500"
    assert shown.figures == {"step": 400, "reconstruction_bce": 0.25, "d_accuracy": 0.7, "discriminator_loss": 1.2}


@pytest.mark.parametrize(
    ("reason", "category"),
    [
        ("QOSMaxJobsPerUserLimit", "quota"), ("AssocGrpCpuLimit", "quota"), ("InvalidAccount", "quota"),
        ("JobArrayTaskLimit", "quota"), ("PartitionTimeLimit", "quota"), ("MaxCpuPerAccount", "quota"),
        ("Resources", "resources"), ("Priority", "resources"), ("(ReqNodeNotAvail, UnavailableNodes:n[1-4])", "resources"),
        ("(Nodes required for job are DOWN, DRAINED or reserved)", "resources"), ("PartitionDown", "resources"),
        ("Licenses", "resources"), ("Reservation", "resources"), ("BadConstraints", "resources"),
        ("JobHeldUser", "held"), ("JobHeldAdmin", "held"), ("launch failed requeued held", "held"),
        ("JobHoldMaxRequeue", "held"), ("Dependency", "dependency"), ("DependencyNeverSatisfied", "dependency"),
        ("BeginTime", "other"), ("None", "other"), ("SomethingNew", "other"),
    ],
)  # fmt: skip
def test_a_reason_to_wait_is_of_one_of_five_kinds(reason: str, category: Category) -> None:
    """What is new to us is `other`; a state that holds is `held` whatever its reason."""
    assert category_of("PENDING", reason) == category
    assert category_of("REQUEUE_HOLD", reason) == "held"


def test_moments_are_told_as_short_as_they_are_clear() -> None:
    """The hour today, the day within a week, else the date."""
    now = datetime.now().replace(hour=12, minute=0)
    assert clock(now.timestamp()) == "12:00"
    assert re.fullmatch(r"[A-Z][a-z]{2} 12:00", clock((now + timedelta(days=2)).timestamp()))
    assert re.fullmatch(r"\d+ [A-Z][a-z]{2} 12:00", clock((now + timedelta(days=30)).timestamp()))


def test_a_run_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are shown, and the exit code says that one is missing."""
    for name in ("a", "b"):
        _run(name, state="finished", submitted=False)

    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == RunDir(Path(os.environ["AAE_RUNS_DIR"], "a")).status_file:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert run([]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[-1] == "b"
    assert "a is left out, it cannot be read" in told.err
