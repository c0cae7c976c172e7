"""Clocks that move: a limit that is changed under a running job, and a job that is suspended."""

import time

import pytest
from jobs import ON_SLURM, SlurmJob

from job.proofs.exactness import Traces

pytestmark = pytest.mark.timeout(300)


def test_a_longer_limit_is_used(job: SlurmJob) -> None:
    """Given while the job runs: it is still in its first segment when the old limit is over."""
    job_id = job.submit(slurm_time="00:01:00", slurm_signal_delay_s=15, max_steps=10**6)
    job.cluster.wait_for_state(job_id, "RUNNING")
    began = time.monotonic()
    job.cluster.ask("scontrol", "update", f"JobId={job_id}", "TimeLimit=20")
    with job.resting_at(20):
        time.sleep(max(0.0, began + 62 - time.monotonic()))
    steps = job.status()["step"]
    deadline = time.monotonic() + 60
    while job.status()["step"] <= steps:
        assert time.monotonic() < deadline, job.job_log()
        time.sleep(0.5)
    assert (job.reasons(), job.status()["segment"]) == ([], 1)


def test_a_limit_that_is_shortened_loses_nothing(job: SlurmJob, whole: Traces) -> None:
    """To less than the delay of the signal, and with a clock that does not know yet: Slurm's own end still leaves time."""
    job_id = job.submit(slurm_time="00:20:00", slurm_max_stalls=99)
    with job.resting_at(150, until_signalled=True):
        job.cluster.ask("scontrol", "update", f"JobId={job_id}", "TimeLimit=1")
    job.wait_until_finished(job_id)
    assert ({*job.reasons()}, {*job.lost()}) == (
        {"time_limit"},
        {0},
    )  # on a slow machine, that minute is too short twice
    assert job.traces() == whole


def test_a_suspended_job_is_shown_so_and_counts_no_time(job: SlurmJob, whole: Traces) -> None:
    """It goes on as if nothing had been."""
    began = time.monotonic()
    job_id = job.submit()
    with job.resting_at(150):
        job.cluster.ask("scontrol", "suspend", job_id)
        time.sleep(14)
        job.slurm("status", "small")
        assert "suspended" in job.output
        assert job.cluster.state(job_id) == "SUSPENDED"
        job.cluster.ask("scontrol", "resume", job_id)
    job.wait_until_finished(job_id)
    assert "suspended" in [record["reason"] for record in job.events("warning")]
    assert job.events("step")[-1]["elapsed_s"] < time.monotonic() - began - 12
    assert (job.reasons(), job.traces()) == ([], whole)


def test_cancel_of_a_suspended_job_says_what_is_lost(job: SlurmJob) -> None:
    """It may be ended without being let go on."""
    job_id = job.submit(max_steps=10**6)
    job.wait_until_step(ON_SLURM["checkpoint_every_steps"] + 20)
    job.cluster.ask("scontrol", "suspend", job_id)
    assert job.slurm("cancel", "small") == 0, job.output
    status = job.status()
    assert status["state"] == "cancelled"
    assert (status["step"] > status["checkpoint_step"]) == ("not saved" in job.output)
