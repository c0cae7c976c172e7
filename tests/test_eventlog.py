"""The event log: strict, one write a line, append-only, and readable over all segments."""

import errno
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from job.log.reader import last_records, merged_records, read_lines
from job.log.writer import EventLog
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.rundir.status import Status, now, write_status
from slurm.login.log import print_log


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An empty run directory."""
    return RunDir(tmp_path)


def test_each_record_is_one_write_of_one_line(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader never sees half a record of a live writer."""
    writes: list[bytes] = []
    real = os.write
    log = EventLog(run_dir, 3, Outbox(run_dir))

    def recording(descriptor: int, data: bytes) -> int:
        writes.append(bytes(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", recording)
    log.write("signal", step=5, signal="SIGTERM")
    log.write("stopped", step=5, reason="terminated")
    assert b"".join(writes) == run_dir.events_file.read_bytes()
    assert len(writes) == 2
    record = orjson.loads(writes[0])
    assert list(record) == ["time", "event", "segment", "step", "signal"]
    assert (record["event"], record["segment"], record["step"]) == ("signal", 3, 5)


@pytest.mark.parametrize(
    "fields", [{"reason": "bored"}, {}, {"reason": "cancel", "more": 1}], ids=["unknown value", "missing", "extra"]
)
def test_what_the_schema_does_not_know_is_never_written(run_dir: RunDir, fields: dict[str, Any]) -> None:
    """A record that breaks the contract is a bug of this project and is found where it is made."""
    log = EventLog(run_dir, 1, Outbox(run_dir))
    with pytest.raises(ValidationError):
        log.write("stopped", step=1, **fields)
    assert run_dir.events_file.read_bytes() == b""


def test_nan_is_refused_and_not_written_as_null(run_dir: RunDir) -> None:
    """JSON has no NaN, and a null in its place would hide it."""
    with pytest.raises(ValidationError):
        EventLog(run_dir, 1, Outbox(run_dir)).write("finished", step=1, elapsed_s=float("nan"))


@pytest.mark.parametrize("torn", [b'{"ti', b"x" * 200_000, b""])
def test_only_a_torn_last_line_is_cut(run_dir: RunDir, torn: bytes) -> None:
    """What a killed writer left without a newline goes at the next start, whatever its length; whole lines stay."""
    run_dir.events_file.write_bytes(b"".join([first := _record("started", 0), second := _record("step", 1)]) + torn)
    assert list(read_lines(run_dir.events_file)) == [first, second]
    assert last_records(run_dir.events_file, 1) == [orjson.loads(second)] or len(torn) > 65536
    EventLog(run_dir, 2, Outbox(run_dir))
    assert run_dir.events_file.read_bytes() == first + second


def _record(event: str, step: int, segment: int = 1, **more: object) -> bytes:
    return orjson.dumps({"time": now(), "event": event, "segment": segment, "step": step, **more}) + b"\n"


def _log(path: Path, as_written: bool, *records: tuple[int, str, int, int | None]) -> None:
    with path.open("wb") as file:
        for segment, event, step, from_step in records:
            extra = {} if from_step is None else {"from_step": from_step}
            record = orjson.loads(_record(event, step, segment, **extra))
            file.write(orjson.dumps(record if as_written else dict(reversed(record.items()))) + b"\n")


@pytest.mark.parametrize("as_written", [True, False])
def test_merging_leaves_out_what_was_done_again(as_written: bool, run_dir: RunDir) -> None:
    """Of each step the last doing counts, over several resumes, and wherever a late line of a stopped writer stands."""
    _log(
        run_dir.events_file,
        as_written,
        (1, "started", 0, None),
        (1, "step", 10, None),
        (1, "step", 20, None),
        (1, "step", 30, None),
        (2, "resumed", 20, 20),
        (2, "step", 30, None),
        (1, "step", 40, None),  # written late by a process that did not know that it had been taken over
        (3, "resumed", 10, 10),  # from an older checkpoint: the newest was damaged
        (3, "step", 20, None),
        (3, "step", 30, None),
    )
    merged = [(r["segment"], r["event"], r["step"]) for r in merged_records(run_dir.events_file)]
    assert merged == [
        (1, "started", 0),
        (1, "step", 10),
        (3, "resumed", 10),
        (3, "step", 20),
        (3, "step", 30),
    ]
    steps = [(r["segment"], r["step"]) for r in merged_records(run_dir.events_file, "step")]
    assert steps == [(1, 10), (3, 20), (3, 30)]


def test_following_prints_a_record_once_that_comes_while_the_log_is_read(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is appended between the first look at the log and the end of its first reading is left to the following."""
    run_dir.events_file.write_bytes(_record("step", 1))
    write_status(run_dir, Status(state="finished", total_steps=2, step=2))
    opened = Path.open
    looks = 0

    def open_and_append(path: Path, *how: Any, **named: Any) -> Any:
        nonlocal looks
        if path == run_dir.events_file:
            looks += 1
            if looks == 2:  # the first has found where the log ends now
                with opened(path, "ab") as file:
                    file.write(_record("step", 2))
        return opened(path, *how, **named)

    monkeypatch.setattr(Path, "open", open_and_append)
    print_log(run_dir, event="step", fields=["step"], csv=True, follow=True)
    assert capfd.readouterr().out.split() == ["step", "1", "2"]


def test_what_the_disk_refuses_is_kept_in_order(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes half a line, then nothing; when there is room again the log is whole and in order."""
    outbox = Outbox(run_dir)
    log = EventLog(run_dir, 1, outbox)
    real = os.write
    room = 60

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", limited)
    for step in (1, 2, 3):
        log.write("stopped", step=step, reason="cancel")
    outbox.put("lattices/x.png", b"png")
    assert outbox.error is not None
    assert len(outbox.items) == 4
    assert not (run_dir.path / "lattices").exists()
    room = 10_000
    outbox.drain()
    assert outbox.error is None
    assert [orjson.loads(line)["step"] for line in run_dir.events_file.read_bytes().splitlines()] == [1, 2, 3]
    assert (run_dir.path / "lattices" / "x.png").read_bytes() == b"png"


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 2**20])
def test_a_log_is_read_in_blocks_of_any_size(block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every whole line once, at every border of a block, of one event or up to a size; a torn last line not."""
    monkeypatch.setattr("job.log.reader._BLOCK_BYTES", block_bytes)
    path = tmp_path / "events.jsonl"
    lines = [b'{"event":"step","step":%d}\n' % number for number in range(30)]
    lines[17] = b'{"event":"lattice","step":17,"message":"\\"event\\":\\"step\\""}\n'
    path.write_bytes(b"".join(lines) + b'{"event":"step","st')
    assert list(read_lines(path)) == lines
    assert list(read_lines(path, "lattice")) == [lines[17]]
    assert list(read_lines(path, "step")) == lines[:17] + lines[18:]
    for num_bytes in range(120):
        whole = len(lines[0])
        assert list(read_lines(path, num_bytes=num_bytes)) == lines[: num_bytes // whole]
    assert list(read_lines(path, num_bytes=path.stat().st_size + 1)) == lines


def test_a_record_that_is_being_written_ends_the_reading(tmp_path: Path) -> None:
    """Its rest may be there a moment later, and is no record of its own."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a":1}\n{"b')
    lines = read_lines(path)
    assert next(lines) == b'{"a":1}\n'
    with path.open("ab") as file:
        file.write(b'":true}\n{"c":3}\n')
    assert list(lines) == []
