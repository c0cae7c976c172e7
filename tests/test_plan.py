"""The plan of a run and of a sweep: from what is known, or unknown."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.rundir.status import Status
from slurm.findings import CheckDir, Findings
from slurm.login.paces import Paces, likeness
from slurm.login.plan import SweepPlan, plan_run

HOURS = Allocation(time="04:00:00", gpus="0")


def _settings(runs_dir: Path, **changes: Any) -> Settings:
    return Settings(**{"runs_dir": runs_dir, "hidden_dim": 64, "max_steps": 1_000_000, "device": "cpu", **changes})


def _ran(settings: Settings, name: str, **status: Any) -> None:
    """A run of these settings that has told its pace."""
    folder = settings.runs_dir / name
    folder.mkdir(parents=True)
    values = settings.model_copy(update={"num_threads": 2}).model_dump(mode="json")
    record = {"format": 1, "settings": values, "sources": {}, "slurm": HOURS.model_dump(mode="json"), "versions": {}}
    (folder / "settings.json").write_bytes(orjson.dumps(record))
    told = {"state": "finished", "total_steps": 9, "device": "cpu", "step_ms_fastest": 40.0, "step_ms_slowest": 50.0}
    (folder / "status.json").write_text(Status.model_validate(told | status).model_dump_json())


def test_nothing_is_guessed(tmp_path: Path) -> None:
    """Without a run like it the time is unknown, and what measures it is named; what it leaves is known."""
    plan = plan_run(_settings(tmp_path), HOURS)
    lines = dict(plan.lines())
    assert lines["training"] == "unknown: `aae-slurm check --on-node` measures it"
    assert "time unknown" in plan.summary
    assert (plan.fastest, plan.as_json()["slowest"]) == (None, None)
    assert "2,000 lattices" in lines["leaves"]


def test_runs_like_it_give_a_range_and_the_waits_that_they_met(tmp_path: Path) -> None:
    """From the fastest segment to the slowest of all that are alike; others, and broken ones, say nothing."""
    settings = _settings(tmp_path)
    _ran(settings, "like", start_up_s=6.0, waits_s=[121.0, 301.0])
    _ran(settings.model_copy(update={"seed": 3, "encoder_lr": 1e-3}), "other-seed", step_ms_slowest=60.0)
    for name, value in (("hidden_dim", 128), ("batch_size", 50), ("precision", "bfloat16"), ("r1_penalty", 0.1)):
        _ran(settings.model_copy(update={name: value}), f"other-{name}", step_ms_fastest=1.0)
    _ran(settings, "on-gpu", device="NVIDIA H100", step_ms_fastest=0.5)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "status.json").write_text("{")
    plan = plan_run(settings, HOURS)
    assert [pace.source for pace in plan.paces] == ["like", "other-seed"]
    assert plan.fastest is not None
    assert plan.slowest is not None
    assert (plan.fastest.step_ms, plan.slowest.step_ms) == (40, 60)
    assert (plan.wait_s, plan.is_met, plan.slowest.start_up_s) == (211, True, 6)
    segment_s = 4 * 3600 - 120 - 15 - 6
    assert (plan.fastest.segment_s, plan.fastest.segments) == (segment_s, 3)
    assert plan.fastest.total_s == 40_000 + 3 * 6 + 2 * 211
    assert dict(plan.lines())["training"] == (
        "11 h 06 min to 16 h 40 min: 1,000,000 steps of 40 to 60 ms, as like, other-seed on cpu"
    )
    assert plan_run(settings, HOURS, steps_done=999_000).steps == 1000
    assert plan_run(settings, HOURS, steps_done=1_000_000).lines() == [("training", "all steps are done")]


def test_a_measurement_on_a_node_counts(tmp_path: Path) -> None:
    """What `check --on-node` has measured for such runs."""
    settings = _settings(tmp_path, num_threads=2)
    check_dir = CheckDir(tmp_path / ".check" / "0123")
    check_dir.path.mkdir(parents=True)
    found = Findings(
        nonce="1", like=likeness(settings, HOURS), host="n1", job_id="3", at="", lines=[], device="cpu", step_ms=10.0
    )
    check_dir.findings_file.write_text(found.model_dump_json())
    (tmp_path / ".check" / "4567").mkdir()
    assert [pace.source for pace in Paces(tmp_path).like(settings, HOURS)] == ["check --on-node on n1"]
    assert Paces(tmp_path).like(settings, Allocation(gpus="1")) != []  # AAE_DEVICE=cpu: no GPU trains
    on_gpu = settings.model_copy(update={"device": "auto"})
    assert Paces(tmp_path).like(on_gpu, Allocation(gpus="1")) == []


def test_a_kill_costs_at_most_the_interval(tmp_path: Path) -> None:
    """Of seconds, or of steps if that is known to be less."""
    settings = _settings(tmp_path, checkpoint_every_steps=100)
    assert plan_run(settings, HOURS).worst_loss_s == 60
    _ran(settings, "like")
    assert plan_run(settings, HOURS).worst_loss_s == 5


@pytest.mark.parametrize(("parallel", "ends"), [(None, 1004), (1, 3 * 1004), (2, 2 * 1004), (3, 1004), (9, 1004)])
def test_a_sweep_ends_with_its_last_run(parallel: int | None, ends: float, tmp_path: Path) -> None:
    """Each run takes the place that is free first."""
    settings = _settings(tmp_path, max_steps=25_000)
    _ran(settings, "like", step_ms_slowest=40.0)
    known = Paces(tmp_path)
    plans = [plan_run(settings, HOURS, known=known) for _ in range(3)]
    assert SweepPlan(plans, parallel).ends_s == (ends, ends)
    unknown = plan_run(settings.model_copy(update={"hidden_dim": 9}), HOURS, known=known)
    mixed = SweepPlan([*plans, unknown], parallel)
    assert (mixed.ends_s, mixed.num_unknown) == (None, 1)
    assert "time unknown for 1 runs" in mixed.summary
