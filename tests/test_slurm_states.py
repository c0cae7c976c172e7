"""What readers show of a run: the contract's rules, first that fits, on a run directory and what squeue says."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from job.config.allocation import Allocation, minutes
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import Status
from slurm.login.states import show
from slurm.scheduler.queue import Job


@pytest.mark.parametrize(
    ("stored", "segment", "queued", "shown"),
    [
        ("finished", 1, "RUNNING", "finished"),
        ("failed", 1, None, "failed"),
        ("submitted", 0, "PENDING", "submitted"),
        ("submitted", 2, "PENDING", "waiting"),
        ("running", 1, "RUNNING", "running"),
        ("waiting", 1, "COMPLETING", "waiting"),
        ("running", 1, "away", "running"),
        ("running", 1, "CANCELLED", "cancelled"),
        ("running", 1, "FAILED", "lost"),
        ("waiting", 1, None, "waiting"),
        ("waiting", 1, "FAILED", "waiting"),
        ("submitted", 0, None, "waiting"),
    ],
)
def test_the_first_rule_that_fits_gives_the_state(
    tmp_path: Path, stored: str, segment: int, queued: str | None, shown: str
) -> None:
    """Stored state, segment and the scheduler's word give what is shown; waiting without a job needs a person."""
    run_dir = _run(tmp_path, stored, segment)
    jobs = [] if queued is None else [Job("5", "5", "0", queued, "None", f"{run_dir.path}/slurm/x.sh")]
    found = show(run_dir, None if queued == "away" else jobs)
    assert found is not None
    assert found.state == shown
    assert found.needs_person == (shown in ("failed", "lost") or (shown == "waiting" and queued in (None, "FAILED")))


def test_a_job_is_recognised_by_its_run_directory(tmp_path: Path) -> None:
    """Not by its name or number: a job of a run with a similar path is another run's."""
    run_dir = _run(tmp_path, "submitted", 0)
    other = Job("9", "9", "0", "PENDING", "Priority", f"{run_dir.path}-2/slurm/.submission_file_x.sh")
    own = Job("8", "8", "0", "PENDING", "Priority", f"{run_dir.path}/slurm/.submission_file_x.sh")
    found = show(run_dir, [other, own])
    assert found is not None
    assert found.job_id == "8"


def test_a_submit_that_left_no_job_needs_a_person(tmp_path: Path) -> None:
    """The submitter died before Slurm was asked; for two minutes it may still be on its way."""
    for age_s, state in ((10, "submitted"), (130, "waiting")):
        run_dir = _run(tmp_path / str(age_s), "submitted", 0, age_s=age_s)
        for path in run_dir.slurm.glob("*_submission.sh"):
            path.unlink()
        found = show(run_dir, [])
        assert found is not None
        assert (found.state, found.needs_person) == (state, state == "waiting")
        away = show(run_dir, None)
        assert away is not None
        assert away.state == "submitted"


def test_an_old_heartbeat_of_an_unknown_job_is_lost(tmp_path: Path) -> None:
    """Unknown to squeue and silent for two minutes: lost. With a fresh heartbeat, not yet."""
    for age_s, state in ((10, "running"), (130, "lost")):
        found = show(_run(tmp_path / str(age_s), "running", 1, age_s=age_s), [])
        assert found is not None
        assert found.state == state


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1:30", 2), ("00:01:00", 1), ("2-12:00:00", 3600), ("1-0", 1440), ("1-2:30", 1590), ("0:0:1", 1)],
)
def test_time_limits_are_read_as_sbatch_reads_them(text: str, expected: int) -> None:
    """All six forms, seconds rounded up to minutes."""
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0:00:00", "x", "1h", "-5", "1:2:3:4", "UNLIMITED"])
def test_other_time_limits_are_refused(text: str) -> None:
    """Zero would mean no limit at all."""
    with pytest.raises(ValueError, match=r"must be|longer"):
        Allocation(time=text)


def _run(path: Path, state: str, segment: int, age_s: float = 1) -> RunDir:
    path.mkdir(exist_ok=True)
    run_dir = RunDir(path)
    updated_at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    status = Status.model_validate(
        {
            "state": state,
            "segment": segment,
            "total_steps": 9,
            "job_id": "5" if segment else None,
            "updated_at": updated_at,
        }
    )
    run_dir.replace(run_dir.status_file, status.model_dump_json().encode())
    if segment:
        owner = Owner.this_process("5").model_copy(update={"host": f"not-{socket.gethostname()}"})
        run_dir.replace(run_dir.claim_file(segment), Segment(owner=owner).model_dump_json().encode())
    run_dir.replace(run_dir.slurm / "5_submission.sh", b"")
    return run_dir
