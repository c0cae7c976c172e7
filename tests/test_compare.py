"""`aae-slurm compare`: seeds together, unlike runs apart, every figure at one step, and logs that are not read whole."""

import csv
import errno
import io
import json
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from jobs import Job

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.config.settings_file import Record
from job.config.sources import Configuration
from job.errors import UsageError
from job.log.at_step import last_record
from job.log.reader import merged_records
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.lease import Lease
from job.rundir.liveness import Owner
from job.rundir.status import Status, read_status, write_status
from slurm.login.compare import run

BCE, DISTANCE, NULL = "reconstruction_bce", "energy_distance", "energy_distance_q99"


def _line(event: str, step: int, segment: int = 1, **fields: Any) -> bytes:
    time = "2026-01-01T00:00:00.000Z"
    return orjson.dumps({"time": time, "event": event, "segment": segment, "step": step, **fields}) + b"\n"


def _evaluation(step: int, bce: float, segment: int = 1, **fields: Any) -> bytes:
    figures = {"num_images": 1000, BCE: bce, DISTANCE: bce / 100, NULL: 0.0035, "c2st_accuracy": 0.5}
    return _line("evaluation", step, segment, **{**figures, **fields})


def _run(name: str, *lines: bytes, status: dict[str, Any] | None = None, **settings: Any) -> RunDir:
    """A made-up run in runs/, finished at the step of its last record."""
    run_dir = RunDir(Path("runs", name).absolute())
    run_dir.path.mkdir(parents=True)
    made = Settings(**{"run_name": name, "runs_dir": run_dir.path.parent, **settings})
    Record.of(Configuration(made, Allocation(), {})).write(run_dir)
    run_dir.events_file.write_bytes(b"".join(lines))
    step = max((orjson.loads(line)["step"] for line in lines), default=0)
    told = {"state": "finished", "total_steps": step, "step": step, "segment": 1, "device": "cpu", **(status or {})}
    write_status(run_dir, Status(**told))
    return run_dir


def _claim(run_dir: RunDir, number: int, from_step: int) -> None:
    segment = Segment(owner=Owner.this_process(), path=os.path.realpath(run_dir.path), from_step=from_step)
    run_dir.replace(run_dir.claim_file(number), segment.model_dump_json().encode())


def _change(run_dir: RunDir, **changes: Any) -> None:
    """Change some keys of settings.json."""
    found = json.loads(run_dir.settings_file.read_text())
    run_dir.settings_file.write_text(json.dumps(found | changes))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def compared(capsys: pytest.CaptureFixture[str]) -> Any:
    """What `compare --json` prints."""

    def compared(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert run([*arguments, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return compared


def test_seeds_are_one_row_with_mean_and_deviation(compared: Any) -> None:
    """As numpy has them, with n - 1; a single seed has no deviation."""
    losses = [0.21, 0.25, 0.2]
    for seed, loss in enumerate(losses):
        _run(
            f"a{seed}", _evaluation(200, loss), seed=seed, status={"saturation": "saturated", "saturated_at_step": 200}
        )
    _run("b", _evaluation(200, 0.3), latent_dim=8, log_every_steps=7)
    found = compared("a0", "b", "a1", "a2", "a0")
    first, second = found["rows"]
    assert (first["settings"], first["runs"], first["seeds"]) == ({"latent_dim": 2}, ["a0", "a1", "a2"], [0, 1, 2])
    assert first["verdicts"] == {"saturated": 3}
    assert first["figures"][BCE] == {
        "mean": pytest.approx(np.mean(losses)),
        "sd": pytest.approx(np.std(losses, ddof=1)),
        "n": 3,
    }
    assert first["figures"]["steps_to_verdict"] == {"mean": 200, "sd": 0, "n": 3}
    assert (second["settings"], second["n"], second["verdicts"]) == ({"latent_dim": 8}, 1, {})
    assert second["figures"][BCE] == {"mean": 0.3, "sd": None, "n": 1}
    assert (found["common_step"], found["marks"]) == (200, {})


def test_only_settings_that_differ_and_enter_the_weights_are_columns(compared: Any) -> None:
    """And a total that differs, which makes rows of their own; what an earlier version did not know is the default."""
    _run("a", _evaluation(200, 0.2), max_steps=200, epochs=3, keep_checkpoints=5, saturation_windows=8)
    old = _run("b", _evaluation(200, 0.2), max_steps=400, epochs=7)
    settings = json.loads(old.settings_file.read_text())["settings"]
    _change(old, settings={name: value for name, value in settings.items() if name != "r1_penalty"})
    assert [row["settings"] for row in compared("a", "b")["rows"]] == [{"max_steps": 200}, {"max_steps": 400}]


def test_lengths_that_differ_are_compared_at_the_last_step_that_all_have(
    compared: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of the record that counts: what an earlier segment did beyond where the next went on is superseded."""
    _run("short", _evaluation(200, 0.3), _evaluation(400, 0.2), _line("step", 500))
    long = _run(
        "long",
        *(_evaluation(step, 1 + step) for step in (200, 400, 600, 800)),
        _line("resumed", 300, 2, from_step=300),
        _evaluation(400, 0.4, 2),
        _evaluation(600, 0.1, 2),
        seed=1,
        status={"segment": 2, "state": "running", "step": 650, "steps_lost": 500},
    )
    _claim(long, 2, 300)
    found = compared("short", "long")
    assert found["common_step"] == 400
    assert found["rows"][0]["figures"][BCE]["mean"] == pytest.approx(0.3)
    assert found["rows"][0]["figures"]["steps_lost"]["mean"] == 250
    assert run(["short", "long"]) == 0
    assert "at step 400, the last that all have" in capsys.readouterr().out


def test_finished_runs_of_equal_lengths_are_compared_at_their_ends(compared: Any) -> None:
    """Also where they evaluated at other steps, which need not be the same."""
    _run("a", _evaluation(800, 0.2), _line("finished", 1000))
    _run("b", _evaluation(1000, 0.4), _line("finished", 1000), seed=1)
    found = compared("a", "b")
    assert found["common_step"] is None
    assert found["rows"][0]["figures"][BCE]["mean"] == pytest.approx(0.3)


def test_other_windows_are_compared_at_the_last_evaluation_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is said, since it is not of that very step."""
    _run("a", *(_evaluation(step, step / 1000) for step in (200, 400, 600, 800)))
    _run("b", _evaluation(300, 0.3), _evaluation(500, 0.5), seed=1)
    assert run(["a", "b"]) == 0
    told = capsys.readouterr().out
    assert "0.4500 ± 0.0707" in told
    assert "Figures at step 500, the last that all have, or last before it; " in told


def test_unlike_runs_stand_apart_and_are_marked(compared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Another device, version, data set or size of the evaluation is not averaged with the others, and told below."""
    for seed in range(2):
        _run(f"a{seed}", _evaluation(200, 0.2), seed=seed)
    _run("device", _evaluation(200, 0.2), seed=2, status={"device": "cuda (H100)"})
    _change(_run("version", _evaluation(200, 0.2), seed=3), versions={"aae-job": "9", "torch": "1.13"})
    _run("images", _evaluation(200, 0.2, num_images=500), seed=4)
    _run("data", _evaluation(200, 0.2), seed=5, dataset="mnist")
    _run("again", _evaluation(200, 0.2), seed=1)
    _run("nothing", seed=6, status={"device": None})
    names = ["a0", "device", "a1", "version", "images", "data", "again", "nothing"]
    found = compared(*names)
    told = {row["runs"][0]: found["marks"].get(str(row["mark"])) for row in found["rows"]}
    assert told.pop("version").startswith("aae-job 9, not ")
    assert told == {
        "a0": None,
        "device": "device cuda (H100), not cpu",
        "images": "images evaluated 500, not 1,000",
        "data": "data set mnist, not digits",
        "again": "the same settings and seed again: no further seed, so it is not averaged with the others",
    }
    assert found["rows"][0]["runs"] == ["a0", "a1", "nothing"]
    assert run(names) == 0
    assert "\n[1] device cuda (H100), not cpu.\n" in capsys.readouterr().out


def test_what_was_asked_for_is_beside_what_the_run_measured(compared: Any) -> None:
    """`aae-job evaluate` alone knows of labels and samples; what it measured of earlier weights is left out."""
    evaluated = _run("a", _evaluation(200, 0.2), _evaluation(400, 0.1))
    asked = {"step": 400, "num_images": 2000, BCE: 9.0, "knn10_accuracy": 0.7, "parzen_log_likelihood": 130.0}
    for step in (200, 400):
        content = json.dumps({**asked, "step": step, "knn10_accuracy": step / 1000})
        evaluated.replace(evaluated.evaluation_file(step), content.encode())
    _run("b", _evaluation(200, 0.2), _evaluation(400, 0.1), seed=1)
    (row,) = compared("a", "b")["rows"]
    assert row["figures"]["knn10_accuracy"] == {"mean": 0.4, "sd": None, "n": 1}
    assert row["figures"][BCE]["mean"] == 0.1
    assert "linear_probe_accuracy" not in row["figures"]


def test_runs_without_evaluations_show_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    """Not begun, or not yet at the end of a window, or a log of which nothing can be read."""
    _run("a", latent_dim=3).events_file.unlink()
    _run("b", _line("started", 0), latent_dim=4).status_file.unlink()
    _run("c", latent_dim=5).events_file.write_bytes(b"\0" * 9000 + b"\n{torn")
    assert run(["a", "b", "c"]) == 0
    table = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:5]]
    assert [row[:6] for row in cells] == [[size, "1 seed", "-", "-", "-", "-"] for size in ("3", "4", "5")]


def test_a_run_that_cannot_be_read_is_left_out_and_told(compared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with exit code 1; the others are compared."""
    _run("a", _evaluation(200, 0.2))
    _run("b").settings_file.write_text("{torn\n")
    assert run(["a", "b"]) == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert told.err.startswith("note: b is left out")
    assert "1 seed" in told.out
    assert len(compared("a", "b", code=1)["rows"]) == 1


def test_a_run_that_may_not_be_looked_at_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is another's, or a disk that does not answer."""
    _run("a", _evaluation(200, 0.2))
    locked = _run("b", _evaluation(200, 0.2)).settings_file
    real = {name: getattr(Path, name) for name in ("stat", "read_bytes")}

    def refused(name: str) -> Any:
        def refuse(path: Path, **options: Any) -> Any:
            if path.absolute() == locked:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real[name](path, **options)

        return refuse

    for name in real:
        monkeypatch.setattr(Path, name, refused(name))
    assert run(["a", "b"]) == 1
    told = capsys.readouterr()
    assert "1 seed" in told.out
    assert told.err.startswith("note: b is left out, it cannot be read: [Errno 13]")


def test_table_csv_and_json_agree(compared: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same rows in the same order, with the same figures; the table lines up."""
    for seed, verdict in enumerate(["saturated", "not_yet", "saturated"]):
        records = [_line("step", 100, elapsed_s=1800.0), _evaluation(200, 0.2 + seed / 10)]
        at = 150 if verdict == "saturated" else None
        _run(f"a{seed}", *records, seed=seed, status={"saturation": verdict, "saturated_at_step": at})
    _run("b", _evaluation(200, 0.1), latent_dim=16, status={"saturation": "false_saturation"})
    names = ["a0", "a1", "a2", "b", "--sort", "BCE"]
    rows = compared(*names)["rows"]
    assert [row["runs"] for row in rows] == [["b"], ["a0", "a1", "a2"]]
    assert run(names) == 0
    header, rule, *lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert len({len(line) for line in (header, rule, *lines)}) == 1
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    names_of = dict(zip(table[0], table[2], strict=True))
    assert names_of == {
        "latent_dim": "2",
        "n": "3 seeds",
        "verdict": "2 of 3 saturated, 1 not yet",
        "BCE": "0.3000 ± 0.1000",
        "energy distance": "0.0030 ± 0.0010",
        "null band": "0.0035 ± 0.0000",
        "C2ST": "0.500 ± 0.000",
        "steps to saturated": "150 ± 0 (2)",
        "hours to saturated": "0.50 ± 0.00 (2)",
        "segments": "1.0 ± 0.0",
        "steps lost": "0 ± 0",
    }
    assert table[1][:4] == ["16", "1 seed", "false saturation", "0.1000"]
    assert run([*names, "--csv"]) == 0
    for found, row in zip(csv.DictReader(io.StringIO(capsys.readouterr().out)), rows, strict=True):
        assert (found["runs"].split(), found["latent_dim"]) == (row["runs"], str(row["settings"]["latent_dim"]))
        for name, figure in row["figures"].items():
            assert (found[name], found[f"{name}_n"]) == (str(figure["mean"]), str(figure["n"]))
            assert found[f"{name}_sd"] == ("" if figure["sd"] is None else str(figure["sd"]))


@pytest.mark.parametrize(
    ("column", "order"),
    [("latent_dim", "bca"), ("energy distance", "cab"), ("c2st_accuracy", "acb"), ("verdict", "abc")],
)
def test_rows_are_sorted_by_any_column(column: str, order: str, compared: Any) -> None:
    """By its name as printed or as in the JSON; equal ones stay as they were, those without a value come last."""
    _run("a", _evaluation(200, 0.2), latent_dim=16)
    _run("b", latent_dim=2)
    _run("c", _evaluation(200, 0.1), latent_dim=8)
    rows = compared("a", "b", "c", "--sort", column)["rows"]
    assert "".join(row["runs"][0] for row in rows) == order


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    """As are a run that does not exist, and none at all."""
    _run("a", _evaluation(200, 0.2))
    with pytest.raises(UsageError, match="--sort bce: no such column; there are n, verdict, BCE, energy distance"):
        run(["a", "--sort", "bce"])
    with pytest.raises(UsageError, match="no run 'b'"):
        run(["a", "b"])
    with pytest.raises(UsageError, match="--help"):
        run([])


def test_foreign_text_cannot_break_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor steer the terminal."""
    for name, value in (("a", "x|y\x1b[2J\nz"), ("b", "w")):
        made = _run(name)
        _change(made, settings=json.loads(made.settings_file.read_text())["settings"] | {"later": value})
    assert run(["a", "b"]) == 0
    assert "x\\|y\\u001b[2J\\nz" in capsys.readouterr().out


def _random_log(draw: random.Random) -> tuple[list[bytes], dict[int, int]]:
    """Lines of a run of several segments, evaluations half a window late, and from where each segment went on."""
    window, lines, begins, step = draw.choice([20, 50, 300]), list[bytes](), {1: 0}, 0
    for segment in range(1, draw.randint(2, 6)):
        begun = begins[segment] = draw.randrange(0, step + 1, 10) if segment > 1 else 0
        lines.append(_line("resumed" if segment > 1 else "started", begun, segment, from_step=begun))
        for step in range(begun + 10, begun + draw.choice([20, 100, 2000]), 10):
            lines.append(_line("step", step, segment, text="x" * draw.randrange(200)))
            if step % window == window // 20 * 10 and step > window:
                lines.append(_evaluation(step - step % window, draw.random(), segment))
    return lines, begins


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("block_bytes", [100, 2**13])
def test_the_record_at_a_step_is_found_as_by_reading_all(
    seed: int, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any log, whatever its segments did again, and damaged anywhere: the last of the merged records up to that step."""
    monkeypatch.setattr("job.log.at_step._BLOCK_BYTES", block_bytes)
    draw = random.Random(seed)
    lines, begins = _random_log(draw)
    for _ in range(seed % 3):
        number = draw.randrange(len(lines))
        if not any(
            b'"resumed"' in line for line in lines[number : number + 2]
        ):  # of these merging lives, bisection of claims
            lines[number] = b"\0" * len(lines[number])  # and the next line is part of it
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(lines) + b'{"torn')
    for event in ("evaluation", "step"):
        merged = list(merged_records(path, event))
        for up_to in [math.inf, *(draw.randrange(2200) for _ in range(20))]:
            counted = [record for record in merged if record["step"] <= up_to]
            found = last_record(path, event, up_to, begins.get)
            assert found == (counted[-1] if counted else None)


def test_a_line_that_a_stopped_writer_left_late_leads_nowhere(tmp_path: Path) -> None:
    """It stands among the records of its successor, and does not count."""
    path = tmp_path / "events.jsonl"
    steps = [_line("step", step, 2) for step in range(110, 1000)]
    late = _line("step", 150, 1)
    for place in range(0, len(steps) + 1, 7):
        path.write_bytes(b"".join([_line("step", 100), *steps[:place], late, *steps[place:]]))
        for up_to in (105, 150, 500, math.inf):
            found = last_record(path, "step", up_to, lambda _: 100)
            assert found is not None
            assert found["step"] == (100 if up_to == 105 else min(up_to, 999))


def test_of_a_long_log_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in its first tenth, among 100,000 records: less than a fiftieth of the bytes; also for what is not there at all."""
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        for step in range(100, 10_000_000, 100):
            file.write(b'{"time":"2026-01-01T00:00:00Z","event":"step","segment":1,"step":%d,"d_prior":0.5}\n' % step)
            if step % 1000 == 500 and step > 1000:
                file.write(_evaluation(step - 500, step / 1e8))
    num_bytes = 0

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            nonlocal num_bytes
            num_bytes += (read := super().readinto(buffer) or 0)
            return read

    def counted(path: Path, _: str, buffering: int) -> io.BufferedReader:
        return io.BufferedReader(Counting(path), buffering)

    monkeypatch.setattr(Path, "open", counted)
    found = last_record(path, "evaluation", 654_321, lambda _: None)
    assert found is not None
    assert found["step"] == 654_000
    assert 0 < num_bytes < path.stat().st_size / 50
    num_bytes = 0
    assert last_record(path, "lattice", 654_321, lambda _: None, within=2000) is None
    assert 0 < num_bytes < path.stat().st_size / 50


def test_a_status_tells_of_lost_steps_from_the_first_start_on(tmp_path: Path) -> None:
    """They add up over the starts; of a run that an earlier version began they stay unknown, and its status is read."""
    run_dir = RunDir(tmp_path / "run")
    lost = []
    for more, is_new in ((0, True), (30, False), (12, False)):
        lease = Lease.take(run_dir, Owner.this_process(), 900, lambda _: None, is_new=is_new)
        lease.count_lost(more)
        lease.release("waiting", "terminated", "", 75)
        lease.end()
        status = read_status(run_dir)
        assert status is not None
        lost.append(status.steps_lost)
    assert lost == [0, 30, 42]
    assert Status.after(status, "submitted", 900).steps_lost == 42
    run_dir.status_file.write_bytes(b'{"state":"waiting","total_steps":900,"segment":3}')
    lease = Lease.take(run_dir, Owner.this_process(), 900, lambda _: None, is_new=False)
    lease.count_lost(5)
    lease.end()
    assert lease.heartbeat.status.steps_lost is None


def test_steps_lost_of_a_killed_run_are_those_of_its_log(small_job: Job) -> None:
    """status.json tells their sum, which `resumed` records tell one by one."""
    small_job.interrupt(signal.SIGKILL, 210)
    assert small_job.run() == 0
    status = read_status(small_job.run_dir)
    assert status is not None
    records = list(merged_records(small_job.run_dir.events_file, "resumed"))
    assert status.steps_lost == sum(record["steps_lost"] for record in records) > 0
