"""Files whose content a disk has lost: what only informs is stepped over, and told of once."""

import os
import signal
from pathlib import Path

import orjson
import pytest
from commands import Commands
from jobs import Job

from job.log.reader import merged_records
from job.proofs.exactness import Traces
from job.proofs.verify import verify_run
from job.rundir.cancel import CancelMark, read_mark
from job.rundir.claim import newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.status import DAMAGED, Status, read_status, write_status
from slurm import aftermath
from slurm.login import collect
from slurm.login.cancel import cancel_runs
from slurm.login.log import print_log
from slurm.login.states import show


def lose_page(path: Path, start: int, num_bytes: int) -> None:
    """Zeros over a part of a file, as a page that never got to the disk reads."""
    with path.open("rb+") as file:
        file.seek(start)
        file.write(bytes(num_bytes))


@pytest.mark.process
@pytest.mark.parametrize("lost", ["page", "not a record"])
def test_a_log_that_lost_a_part_stops_nothing(lost: str, small_job: Job, uninterrupted: Traces) -> None:
    """A killed run goes on to the same bytes; it and `verify` say which part; `log` prints JSON alone."""
    small_job.interrupt(signal.SIGKILL, at_step=300)
    log = small_job.run_dir.events_file
    lines = log.read_bytes().splitlines(keepends=True)
    start = sum(map(len, lines[:-4]))
    if lost == "page":
        lose_page(log, start, 600)
    else:
        log.write_bytes(b"".join([*lines[:-4], b"[]\n", b'{"event":"step"}\n', b"\xff\xfe\n", *lines[-4:]]))
    assert small_job.run() == 0, small_job.output
    traces = small_job.traces()
    assert (traces.weights, traces.lattices) == (uninterrupted.weights, uninterrupted.lattices)
    assert "damaged_log" in [record["reason"] for record in _warnings(small_job)]
    assert small_job.slurm("log", str(small_job.run_dir.path)) == 0
    printed = [line for line in small_job.output.splitlines() if not line.startswith("note: ")]
    assert all(orjson.loads(line)["event"] for line in printed)
    assert "note: " in small_job.output
    damage = [finding for finding in verify_run(small_job.run_dir) if not finding.good]
    assert damage[0].seen.startswith(f"bytes {start} to ")


def _warnings(job: Job) -> list[dict[str, str]]:
    """Its warnings, whatever else the log holds."""
    return list(merged_records(job.run_dir.events_file, "warning"))


DAMAGED_STATUS = {
    "empty": b"",
    "zeros": bytes(500),
    "torn": b'{"state": "runn',
    "a list": b"[]",
    "no total": b'{"state":"running","total_steps":-1}',
    "no time": b'{"state":"running","total_steps":9,"updated_at":""}',
    "no zone": b'{"state":"running","total_steps":9,"updated_at":"2026-01-01T00:00:00"}',
    "NaN": b'{"state":"running","total_steps":9,"eta_s":NaN}',
    "infinite": b'{"state":"running","total_steps":9,"eta_s":1e999}',
    "deep NaN": b'{"state":"running","total_steps":9,"crash":{"step":Infinity}}',
    "latin-1": '{"state":"running","total_steps":9,"host":"n\u00f6"}'.encode("latin-1"),
}


@pytest.mark.process
@pytest.mark.parametrize("content", DAMAGED_STATUS.values(), ids=DAMAGED_STATUS.keys())
def test_a_damaged_status_blinds_nobody(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown as what the run directory tells; a cancel mends it."""
    run_dir = RunDir(tmp_path)
    run_dir.checkpoints.mkdir()
    run_dir.checkpoint_file(40).touch()
    run_dir.status_file.write_bytes(content)
    status = read_status(run_dir)
    assert status is not None
    assert (status.state, status.reason, status.step, status.total_steps) == ("waiting", DAMAGED, 40, 0)
    shown = show(run_dir, [])
    assert shown is not None
    assert shown.needs_person
    assert cancel_runs([run_dir]) == 0
    assert "cancelled at step 40" in capsys.readouterr().out
    mended = read_status(run_dir)
    assert mended is not None
    assert mended.state == "cancelled"


@pytest.mark.process
def test_a_total_of_none_divides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status.json that holds a total of 0 steps is shown without a share."""
    from slurm.login import status as command

    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run_dir.settings_file.touch()
    write_status(run_dir, Status(state="running", step=7, total_steps=0))
    monkeypatch.setenv("AAE_RUNS_DIR", str(tmp_path))
    assert command.run([]) == 1
    assert command.run(["--json"]) == 1


@pytest.mark.parametrize("segment", [0, 1, 3, 10**9])
def test_the_newest_claim_is_found_whatever_the_status_says(segment: int, tmp_path: Path) -> None:
    """A status names the segment to begin at; one that does not exist is not believed, and a damaged claim is still a claim."""
    run_dir = RunDir(tmp_path)
    run_dir.claim_file(1).parent.mkdir()
    for number in (1, 2, 3):
        run_dir.claim_file(number).write_bytes(bytes(100))
    write_status(run_dir, Status(state="running", total_steps=5, segment=segment))
    assert newest_claim(run_dir) == 3
    assert read_segment(run_dir, 3) is None
    findings = [finding.what for finding in verify_run(run_dir) if not finding.good]
    assert findings == [".claims/000001", ".claims/000002", ".claims/000003"]


@pytest.mark.process
@pytest.mark.parametrize("content", [b"", bytes(80), b"{}"])
def test_a_start_that_is_meant_lifts_a_damaged_mark(content: bytes, small_job: Job) -> None:
    """A cancel mark that names nobody stops a process that runs, but no start by a person."""
    small_job.run_dir.path.mkdir()
    small_job.run_dir.cancel_mark.write_bytes(content)
    assert read_mark(small_job.run_dir) == CancelMark()
    assert small_job.run(max_steps=20) == 0, small_job.output
    assert not small_job.run_dir.cancel_mark.exists()


@pytest.mark.process
def test_what_a_power_cut_damages_does_not_keep_slurm_from_starting_a_run_again(
    small_job: Job, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    """status.json, which is never synced, and the end of the log are lost; what comes after the job reads both."""
    small_job.interrupt(signal.SIGKILL, at_step=300)
    run_dir = small_job.run_dir
    run_dir.status_file.write_bytes(b"")
    size = run_dir.events_file.stat().st_size
    lose_page(run_dir.events_file, size - 400, 200)
    commands.shows({"JobState": "RUNNING"})
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    aftermath.main([str(run_dir.path), "137"])
    assert commands.calls[-1] == "scontrol requeue 5"
    status = small_job.status()
    assert (status["state"], status["reason"], status["segment"]) == ("waiting", "killed", 2)
    assert small_job.run() == 0, small_job.output


def test_following_never_sees_a_line_that_is_cut_as_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half a record is cut away while somebody follows, and longer ones take its place; later the log is a new file."""
    run_dir = RunDir(tmp_path)
    write_status(run_dir, Status(state="running", total_steps=9))

    def record(step: int, more: str = "") -> bytes:
        line = {"time": "2026-01-01T00:00:00.000Z", "event": "step", "segment": 1, "step": step, "more": more}
        return orjson.dumps(line) + b"\n"

    contents = [
        record(1) + record(2)[:30],
        record(1) + record(3, "x" * 200) + record(4, "y" * 200),
        record(1) + record(3, "x" * 200) + record(4, "y" * 200) + b"\0\n" + record(5),
        record(6),
        record(6) + record(7),
    ]
    run_dir.events_file.write_bytes(contents[0])
    left = iter(contents[1:])

    def next_moment(_: float) -> None:
        content = next(left, None)
        if content is None:
            write_status(run_dir, Status(state="finished", total_steps=9))
        else:
            run_dir.events_file.write_bytes(content)

    monkeypatch.setattr("time.sleep", next_moment)
    print_log(run_dir, event=None, fields=["step"], csv=True, follow=True)
    told = capfd.readouterr()
    assert told.out.split() == ["step", "1", "3", "4", "5", "6", "7"]
    assert told.err.count("note: a line of ") == 1


def test_collect_takes_what_is_the_run_s_and_goes_on_past_what_it_cannot_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No link that leads out of the run, no folder, no pipe; what is left out is told, with exit code 1."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.final.mkdir(parents=True)
    run_dir.settings_file.write_text("{}")
    (tmp_path / "secret").write_text("not yours")
    (run_dir.final / "notes.txt").symlink_to(tmp_path / "secret")
    (run_dir.final / "within.json").symlink_to(run_dir.settings_file)
    (run_dir.final / "dangling").symlink_to(run_dir.path / "nothing")
    (run_dir.final / "folder").mkdir()
    os.mkfifo(run_dir.final / "pipe")
    (run_dir.final / "weights.safetensors").write_bytes(b"w")
    run_dir.lattices.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "step-000000000001.png").write_bytes(b"png")
    run_dir.events_file.write_bytes(b"\0\0\n")
    assert collect.run([str(run_dir.path), str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    for name in ("notes.txt", "dangling", "folder", "pipe", "step-000000000001.png"):
        assert name in told.err
    files = orjson.loads((tmp_path / "out" / "run" / "manifest.json").read_bytes())["files"]
    tables = {"metrics.csv", "evaluations.csv", "segments.csv"}
    expected = {"settings.json", "within.json", "weights.safetensors", "report.html", *tables}
    assert set(files) == expected
    copied = {str(p.relative_to(tmp_path / "out" / "run")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert copied == expected | {"manifest.json", "SHA256SUMS"}
