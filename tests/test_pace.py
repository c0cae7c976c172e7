"""What status.json keeps of a run's speed and of the waits between its segments."""

import pytest
from jobs import Job

from job.config.allocation import Allocation
from job.rundir.claim import Segment
from job.rundir.liveness import Owner
from job.rundir.pace import KEPT_WAITS, paces, waits_until
from job.rundir.status import Status, iso
from slurm.login.forecast import forecast, forecast_of

STARTED = 1_800_000_000.0


def _owner(job_id: str | None, restarts: int = 0) -> Owner:
    return Owner.this_process(job_id, restarts)


def _status(**values: object) -> Status:
    return Status.model_validate({"state": "waiting", "total_steps": 9, "updated_at": iso(STARTED), **values})


def test_a_wait_counts_where_slurm_has_started_the_same_job_again() -> None:
    """Not where a person has submitted the run again, nor where no scheduler is: that wait says nothing of the next."""
    before = Segment(owner=_owner("7"))
    found = waits_until(STARTED + 121.3, _owner("7", 1), before, _status(waits_s=[60.0]))
    assert found == [60.0, pytest.approx(121.3)]
    for owner in (_owner("8", 1), _owner(None), _owner("7")):
        assert waits_until(STARTED + 121.3, owner, before, _status(waits_s=[60.0])) == [60.0]
    assert waits_until(STARTED, _owner("7"), None, None) == []


def test_the_last_waits_are_kept_and_a_clock_that_is_behind_makes_none_negative() -> None:
    """The hosts' clocks may differ."""
    found = waits_until(STARTED - 5, _owner("7", 1), Segment(owner=_owner("7")), _status(waits_s=[1.0] * KEPT_WAITS))
    assert found == [*[1.0] * (KEPT_WAITS - 1), 0.0]


def test_the_range_of_paces_holds_every_segment_that_was_long_enough() -> None:
    """A segment of a few steps has the slow first ones in its mean."""
    before = _status(step_ms=40.0, step_ms_fastest=38.0, step_ms_slowest=42.0)
    assert paces(before, 50.0, 99) == {"step_ms": 50.0, "step_ms_fastest": 38.0, "step_ms_slowest": 42.0}
    assert paces(before, 50.0, 100) == {"step_ms": 50.0, "step_ms_fastest": 38.0, "step_ms_slowest": 50.0}
    assert paces(None, None, 0) == {"step_ms_fastest": None, "step_ms_slowest": None}


def test_a_run_tells_its_pace_and_its_start(small_job: Job) -> None:
    """In status.json, at the end too."""
    small_job.run()
    status = small_job.status()
    assert status["step_ms"] > 0
    assert 0 < status["start_up_s"] < 60
    assert status["started_at"] < status["updated_at"]
    assert (status["limit_at"], status["waits_s"]) == (None, [])


def test_a_forecast_is_its_formula() -> None:
    """An hour at a time, less the signal's delay and the start; the waits are between the segments."""
    hour = Allocation(time="01:00:00", signal_delay_s=120)
    found = forecast(100_000, 100.0, hour, start_up_s=10, wait_s=100)
    assert (found.train_s, found.segment_s, found.segments) == (10_000, 3455, 3)
    assert found.total_s == 10_000 + 3 * 10 + 2 * 100
    training = forecast(100_000, 100.0, hour, start_up_s=10, wait_s=100, left_s=1135)
    assert (training.first_segment_s, training.segments) == (1000, 4)
    assert training.total_s == 10_000 + 3 * 10 + 3 * 100
    assert forecast(100_000, 100.0, None, start_up_s=10).total_s == 10_010
    assert forecast(0, 100.0, hour).total_s == 0


def test_a_forecast_takes_the_waits_met_so_far_and_claims_nothing_without_a_pace() -> None:
    """The median of them; by default what Slurm itself makes a requeued job wait."""
    hour = Allocation(time="01:00:00")
    values = {"step": 10_000, "total_steps": 110_000, "step_ms": 100.0, "start_up_s": 5.0}
    found = forecast_of(_status(**values, waits_s=[121, 150, 4000]), hour)
    assert found is not None
    assert (found.steps, found.wait_s, found.start_up_s) == (100_000, 150, 5)
    unmet = forecast_of(_status(**values), hour)
    assert unmet is not None
    assert unmet.wait_s == 121
    assert forecast_of(_status(), hour) is None
