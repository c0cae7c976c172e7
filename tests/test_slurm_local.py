"""`aae-slurm submit --local`: the same run through submitit's local executor, with no Slurm."""

import contextlib
import os
import signal
import time
from pathlib import Path

import orjson
import pytest
from cluster import has_pending_signal
from jobs import ON_SLURM, TOTAL, Job, small_settings

from job.proofs.exactness import Traces

pytestmark = pytest.mark.process


def _wait_for_state(job: Job, state: str, timeout_s: float = 150) -> None:
    deadline = time.monotonic() + timeout_s
    while not job.run_dir.status_file.exists() or job.status()["state"] != state:
        assert time.monotonic() < deadline, [path.read_text() for path in job.run_dir.slurm.glob("*.out")]
        time.sleep(0.1)


def test_a_local_run_outlives_the_command_and_finishes(small_job: Job, uninterrupted: Traces) -> None:
    """The command returns at once; the run goes on in a session of its own and ends with the same bytes."""
    assert small_job.slurm("submit", "--local") == 0, small_job.output
    local = small_job.output.split("local-")[1].split()[0]
    assert small_job.slurm("submit", "--local") == 0
    assert f"local-{local}" in small_job.output, (
        "a second submit must find the first, which has not claimed the run yet"
    )
    small_job.wait_until_step(100)
    status = small_job.status()
    assert status["job_id"].startswith("local-")
    assert os.getsid(status["pid"]) != os.getsid(0)
    os.kill(status["pid"], signal.SIGSTOP)  # else it may be done before both commands have looked at it
    try:
        assert small_job.status()["state"] == "running"
        assert small_job.slurm("submit", "--local") == 0
        assert f"process {status['pid']}" in small_job.output
        assert small_job.slurm("status", "small") == 0
        assert "running" in small_job.output
    finally:
        os.kill(status["pid"], signal.SIGCONT)
    _wait_for_state(small_job, "finished")
    assert small_job.traces() == uninterrupted


def test_a_time_limit_starts_it_again(tmp_path: Path) -> None:
    """With an explicit time limit submitit signals, the run saves, and is started again: a real requeue without Slurm."""
    job = Job(tmp_path, small_settings(**ON_SLURM, slurm_time="1", slurm_signal_delay_s=20, slurm_max_stalls=99))
    assert job.slurm("submit", "--local", max_steps=10**6) == 0, job.output
    with job.resting_at(1, until_signalled=True):
        pass
    with job.resting_at(1, segment=2, until_signalled=True):
        cancelling = job.start("cancel", "small", module="slurm")
    assert job.wait(cancelling) == 0, job.output
    # How far it gets depends on the machine: cut it short there, and compare with a run of that length.
    total = job.status()["step"] + 100
    assert job.slurm("submit", "--local", max_steps=total) == 0, job.output
    _wait_for_state(job, "finished")
    assert [record["reason"] for record in job.events("stopped")][:2] == ["time_limit", "cancel"]
    assert {record["steps_lost"] for record in job.events("resumed")} == {0}
    whole = Job(tmp_path / "whole", small_settings(**{**ON_SLURM, "max_steps": total}))
    assert whole.run() == 0, whole.output
    assert job.traces() == whole.traces()


def _doze(job: Job) -> None:
    """Stop the run's process if it trains, and let it go on if a signal waits for it: it need not train all the time."""
    with contextlib.suppress(OSError):
        trains = {record["segment"] for record in job.events("step")}
        if job.status()["segment"] in trains:
            os.kill(job.process(), signal.SIGSTOP if not has_pending_signal(job.process()) else signal.SIGCONT)
    time.sleep(0.2)


def test_the_last_of_submitits_starts_says_so(tmp_path: Path) -> None:
    """submitit's local executor starts a task six times; then the run waits, and tells what to do."""
    job = Job(tmp_path, small_settings(**{**ON_SLURM, "max_steps": 10**6}, slurm_time="1", slurm_signal_delay_s=50))
    job.environment["AAE_SLURM_MAX_STALLS"] = "99"  # a busy machine may not come to its first step in ten seconds
    assert job.slurm("submit", "--local") == 0, job.output
    deadline = time.monotonic() + 200
    while [record["segment"] for record in job.events("stopped")][-1:] != [6]:
        assert time.monotonic() < deadline, job.records()[-3:]
        _doze(job)
    with contextlib.suppress(OSError):
        os.kill(job.process(), signal.SIGCONT)
    _wait_for_state(job, "waiting")
    verdict = job.status()["verdict"]
    assert "the last of the 6 starts" in verdict
    assert "submit the run again" in verdict
    assert job.slurm("status", "small") == 1


def test_following_a_log_ends_with_the_run(small_job: Job) -> None:
    """`log --follow` prints what is there and what comes, each record once, and ends when the run is finished."""
    assert small_job.slurm("submit", "--local") == 0
    small_job.wait_until_step(50)
    assert small_job.slurm("log", "small", "--follow", "--event", "step", "--fields", "step", "--csv") == 0
    assert small_job.output.split() == ["step", *(str(step) for step in range(7, TOTAL + 1, 7))]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1", "cancel"])
def test_a_stopped_local_run_is_not_started_again(how: str, small_job: Job) -> None:
    """A signal leaves it waiting, cancel cancelled; it comes back only by a command."""
    assert small_job.slurm("submit", "--local", max_steps=10**6) == 0
    small_job.wait_until_step(100)
    if how == "cancel":
        assert small_job.slurm("cancel", "small") == 0, small_job.output
    else:
        os.kill(small_job.status()["pid"], signal.Signals[how])
    state, reason = {"cancel": ("cancelled", "cancel"), "SIGINT": ("waiting", "interrupt")}.get(
        how, ("waiting", "terminated")
    )
    _wait_for_state(small_job, state)
    time.sleep(2)
    assert (small_job.status()["state"], small_job.status()["reason"]) == (state, reason)
    assert small_job.status()["exit_code"] == 75
    assert {record["segment"] for record in small_job.records()} == {1}


def test_a_submit_right_after_a_cancel_starts_it_again(small_job: Job) -> None:
    """submitit's controller outlives the cancelled process by a moment, and must not be taken for a run that goes on."""
    assert small_job.slurm("submit", "--local", max_steps=10**6) == 0
    small_job.wait_until_step(50)
    controller = small_job.status()["job_id"].removeprefix("local-")
    assert small_job.slurm("cancel", "small") == 0, small_job.output
    with contextlib.suppress(ProcessLookupError):  # as if it slept a little longer, if it has not ended yet
        os.kill(int(controller), signal.SIGSTOP)
    second = small_job.start("submit", "--local", module="slurm", max_steps=10**6)
    time.sleep(1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(controller), signal.SIGCONT)
    assert small_job.wait(second) == 0, small_job.output
    assert "as    local-" in small_job.output
    small_job.wait_until_step(1, segment=2)
    assert small_job.slurm("cancel", "small") == 0, small_job.output


def test_a_local_run_can_be_cancelled_before_it_has_begun(small_job: Job) -> None:
    """There is a controller and no process yet that claims the run: it ends, and nothing trains."""
    assert small_job.slurm("submit", "--local", max_steps=10**6) == 0
    controller = int(small_job.output.split("local-")[1].split()[0])
    os.kill(controller, signal.SIGSTOP)  # while it still starts: the signal finds nobody who could hand it on
    cancelling = small_job.start("cancel", "small", module="slurm")
    time.sleep(2)
    os.kill(controller, signal.SIGCONT)
    assert small_job.wait(cancelling) == 0, small_job.output
    assert small_job.status()["state"] == "cancelled"
    deadline = time.monotonic() + 120
    while Path(f"/proc/{controller}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert small_job.status()["state"] == "cancelled"
    assert small_job.slurm("submit", "--local") == 0
    assert "as    local-" in small_job.output
    _wait_for_state(small_job, "finished")


def test_status_knows_a_killed_local_run(small_job: Job) -> None:
    """A process that is gone on this host is lost at once, needs a person, and the exit code says so."""
    assert small_job.slurm("submit", "--local", max_steps=10**6) == 0
    small_job.wait_until_step(50)
    os.kill(small_job.status()["pid"], signal.SIGKILL)
    time.sleep(1)
    assert small_job.slurm("status", "small", "--json") == 1
    (shown,) = orjson.loads(small_job.output)
    assert (shown["state"], shown["needs_person"]) == ("lost", True)
