"""What a run leaves on disk and takes in memory, however long it is."""

import json
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from jobs import Job, small_settings

from job.config.settings import Settings
from job.config.settings_file import Record, recorded_settings
from job.config.sources import read_configuration
from job.log.series import MAX_BUCKETS, Marks, Series
from job.output import size
from job.results.curves import curves_at_last
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.segment.footprint import footprint, too_much
from job.segment.plan import plan_start
from slurm.login.clusters import Queues
from slurm.login.keeping.run import collect_run
from slurm.login.states import size_bytes


def test_no_spike_vanishes_from_a_thinned_curve() -> None:
    """Of a hundred thousand points a few hundred stay, the least, the greatest and the last among them, each where it was."""
    series = Series()
    for step in range(1, 100_001):
        series.add(step, 5.0 if step == 40_007 else -3.0 if step == 71_111 else 1 + (step % 2) / 1000)
    series.add(100_001, 1.5)
    points = list(series.points())
    assert len(points) <= 2 * MAX_BUCKETS
    assert points == sorted(points)
    assert (max(points, key=lambda p: p[1]), min(points, key=lambda p: p[1])) == ((40_007, 5.0), (71_111, -3.0))
    assert points[-1] == (100_001, 1.5)
    few = Series()
    for step, value in ((1, 0.5), (2, None), (3, float("nan")), (4, "x"), (5, 0.25)):
        few.add(step, value)
    assert list(few.points()) == [(1, 0.5), (5, 0.25)]


def test_marks_are_thinned_and_counted() -> None:
    """The last is always there."""
    marks = Marks(most=10)
    for step in range(1000):
        marks.add(step, "x")
    assert (marks.count, marks.last) == (1000, (999, "x"))
    assert len(list(marks)) <= 11
    assert list(marks)[-1] == (999, "x")


def _log(path: Path, num_records: int) -> None:
    step = {"reconstruction_loss": 0.2, "discriminator_loss": 1.3, "generator_loss": 0.7, "d_prior": 0.5, "d_code": 0.5}
    step |= {"d_accuracy": 0.5, "images_per_s": 1000.5, "elapsed_s": 3.25}
    with path.open("wb") as file:
        for number in range(1, num_records + 1):
            first = {
                "time": "2026-01-01T00:00:00.000Z",
                "event": "step",
                "segment": 1,
                "step": 100 * number,
                "epoch": number,
            }
            file.write(orjson.dumps(first | step, option=orjson.OPT_APPEND_NEWLINE))


@pytest.mark.process
def test_a_picture_takes_no_more_memory_of_a_long_log(tmp_path: Path) -> None:
    """The greatest memory that the process that draws has held, with a hundred thousand records and with a thousand."""
    peaks = []
    for num_records in (1_000, 100_000):
        run_dir = RunDir(tmp_path / str(num_records))
        run_dir.path.mkdir()
        _log(run_dir.events_file, num_records)
        code = (
            "import resource, sys; from pathlib import Path; from job.results.curves import draw_curves; "
            "from job.rundir.directory import RunDir; draw_curves(RunDir(Path(sys.argv[1]))); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-P", "-c", code, str(run_dir.path)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] <= 1.05 * peaks[0], peaks


@pytest.mark.process
@pytest.mark.parametrize("fault", ["hangs", "dies", "is refused"])
def test_a_last_picture_that_cannot_be_drawn_costs_no_run_its_end(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, dies, or there is no memory for its process: that is raised in time, as what `finish` goes on from."""
    run_dir = RunDir(tmp_path)

    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{'exec sleep 600' if fault == 'hangs' else 'exit 1'}\n")
    python.chmod(0o644 if fault == "is refused" else 0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    began = time.monotonic()
    with pytest.raises((OSError, subprocess.SubprocessError)):
        curves_at_last(run_dir, 0.5)
    assert time.monotonic() - began < 5


@pytest.mark.process
def test_a_run_without_its_last_picture_ends_finished(tmp_path: Path) -> None:
    """The process that draws is refused memory: a warning, and everything else in `final/`."""
    job = Job(tmp_path, small_settings(max_steps=40))
    job.draw()
    job.environment["MPLBACKEND"] = "no-such-backend"
    job.environment["PYTHONPATH"] = str(tmp_path / "broken")
    (tmp_path / "broken" / "matplotlib").mkdir(parents=True)
    (tmp_path / "broken" / "matplotlib" / "__init__.py").write_text("raise MemoryError\n")
    assert job.run() == 0, job.output
    assert [record["reason"] for record in job.events("warning")] == ["no_curves"]
    assert sorted(path.name for path in job.run_dir.final.iterdir()) == [
        "codes.npz",
        "lattice.png",
        "samples.png",
        "summary.json",
        "weights.safetensors",
    ]


@pytest.mark.process
def test_a_finished_run_leaves_little_and_goes_on(tmp_path: Path) -> None:
    """One checkpoint, no file for each evaluation; with a larger total it goes on to the same bytes; status tells its size."""
    job, whole = (Job(tmp_path / name, small_settings(max_steps=300, evaluate_every_steps=50)) for name in ("a", "b"))
    assert whole.run(max_steps=400) == 0, whole.output
    assert job.run() == 0, job.output
    assert job.run_dir.checkpoint_steps() == [300]
    assert "will leave about" in job.output
    assert job.run(max_steps=400) == 0, job.output
    assert job.traces() == whole.traces()
    assert job.run_dir.checkpoint_steps() == [400]
    assert not job.run_dir.evaluations.exists()
    on_disk = sum(path.stat().st_size for path in job.run_dir.path.rglob("*") if path.is_file())
    assert size_bytes(job.run_dir) == pytest.approx(on_disk, rel=0.1)
    assert job.slurm("status", "small", "--json") == 0, job.output
    assert json.loads(job.output)[0]["size_bytes"] == size_bytes(job.run_dir)
    assert job.slurm("status", "small") == 0
    assert size(size_bytes(job.run_dir)) in job.output
    settings = Settings.model_validate(json.loads(job.run_dir.settings_file.read_bytes())["settings"])
    sizes = [path.stat().st_size for path in (job.run_dir.checkpoint_file(400), job.run_dir.final_weights)]
    assert [footprint(settings).checkpoint_bytes, footprint(settings).weights_bytes] == pytest.approx(sizes, rel=0.15)
    collect_run(job.run_dir, tmp_path / "out", Queues(1))
    rows = (tmp_path / "out" / "small" / "evaluations.csv").read_text().splitlines()
    assert rows[0].startswith("step,num_images,reconstruction_bce")
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(50, 401, 50))


def test_what_a_long_run_will_leave_is_told_with_the_cadence_that_fits() -> None:
    """Three days of a fast GPU: as many lattices as nobody looks at, and a log of gigabytes."""
    days = Settings(max_steps=200_000_000)
    found = footprint(days)
    assert found.num_lattices == 400_000
    told = dict(too_much(days, found))
    assert "AAE_LATTICE_EVERY_STEPS=100000 " in told["many_lattices"]
    assert "AAE_LOG_EVERY_STEPS=" in told["large_log"]
    words = told["large_log"].replace(",", " ").split()
    fits = {name: int(value) for name, value in (word.split("=") for word in words if "=" in word)}
    fitting = days.model_copy(
        update={
            "lattice_every_steps": 100_000,
            "log_every_steps": fits["AAE_LOG_EVERY_STEPS"],
            "evaluate_every_steps": fits["AAE_EVALUATE_EVERY_STEPS"],
        }
    )
    assert too_much(fitting, footprint(fitting)) == []
    assert too_much(Settings(), footprint(Settings())) == []


def test_a_window_is_never_shorter_than_200_steps_by_default_and_a_run_keeps_its_own(tmp_path: Path) -> None:
    """The default is a function of fixed settings; settings.json holds the number; a record without it is an earlier version's."""
    assert Settings().window_steps == 200
    assert Settings(dataset="mnist").window_steps == 600
    assert Settings(max_steps=7).window_steps == 200
    environment = {"AAE_RUNS_DIR": str(tmp_path), "AAE_RUN_NAME": "r"}
    configuration = read_configuration(environment=environment)
    plan = plan_start(configuration)
    plan.run_dir.path.mkdir()
    plan.record.write(plan.run_dir)
    stored = json.loads(plan.run_dir.settings_file.read_bytes())
    assert stored["settings"]["evaluate_every_steps"] == 200
    stored["settings"]["evaluate_every_steps"] = None
    assert recorded_settings(Record.model_validate(stored), plan.run_dir).window_steps == 100
    plan.run_dir.settings_file.write_text(json.dumps(stored))
    assert plan_start(configuration).settings.window_steps == 100
    asked = read_configuration(environment=environment | {"AAE_EVALUATE_EVERY_STEPS": "300"})
    assert plan_start(asked).settings.window_steps == 300


def test_pictures_are_synced_before_a_checkpoint_and_not_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced when it is written; at a checkpoint each file once, the last content of one that was replaced."""
    run_dir = RunDir(tmp_path)
    synced: list[str] = []
    fsync = __import__("os").fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", note)
    outbox = Outbox(run_dir)
    for step in (1, 2):
        outbox.put(f"lattices/step-{step}.png", b"x")
        outbox.put("lattices/latest.png", b"x")
    assert synced == []
    (run_dir.lattices / "step-1.png").unlink()
    outbox.flush()
    assert sorted(synced) == ["events.jsonl", "latest.png", "lattices", "step-2.png"]
    outbox.flush()
    assert synced[4:] == ["events.jsonl"]
