"""`aae-slurm submit --local`: the same run through submitit's local executor, with no Slurm."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import orjson
import pytest
from cluster import parent_of
from jobs import LOGGED, ON_SLURM, Job, small_settings
from journey import Journey

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]


@pytest.mark.waits(60)
def test_submitit_starts_a_run_six_times(tmp_path: Path) -> None:
    """At an explicit time limit submitit signals, the run saves, and is started again: a real requeue without Slurm.

    The last of the six starts leaves the run waiting, and says what to do.
    """
    job = Job(
        tmp_path / "runs", small_settings(**ON_SLURM, slurm_time="1", slurm_signal_delay_s=20, slurm_max_stalls=99)
    )
    journey = Journey(job, tmp_path, "--local")
    journey.submit()
    journey.rest()
    with journey.meets("the time limit", "time_limit", until_signalled=True):
        pass
    for start in range(2, 6):
        with journey.meets(f"the signal of the time limit, at start {start}", "time_limit") as process:
            os.kill(process, signal.SIGUSR2)
    with journey.stage("the last start"):
        os.kill(job.process(), signal.SIGUSR2)
        journey.go_on()
        journey.wait_for_state("waiting")
        verdict = job.status()["verdict"]
        assert "the last of the 6 starts" in verdict
        assert "submit the run again" in verdict
        assert job.slurm("status", "small") == 1
        assert journey.segment == 6
    journey.finish()
    journey.compare()
    assert [record["steps_lost"] for record in job.events("resumed")] == [0] * 6


@pytest.mark.waits(30)
def test_a_local_run_outlives_the_command_and_is_stopped_by_a_person_alone(tmp_path: Path) -> None:
    """In a session of its own; a signal leaves it waiting, cancel cancelled, and it comes back only by a command."""
    job = Job(tmp_path / "runs", small_settings(**ON_SLURM))
    journey = Journey(job, tmp_path, "--local")
    journey.submit()
    with journey.stage("a second submit, which finds the first, at any moment"):
        first = journey.job_id
        assert first.startswith("local-")
        journey.submit()
        assert journey.job_id in (first, "process"), "whether it has claimed the run yet or not"
        journey.job_id = first
        journey.rest()
        status = job.status()
        assert (status["state"], status["job_id"]) == ("running", first)
        assert os.getsid(status["pid"]) != os.getsid(0)
        assert job.slurm("submit", "--local") == 0
        assert f"process {status['pid']}" in job.output
        assert job.slurm("status", "small") == 0
        assert "running" in job.output

    with journey.stage("SIGKILL: lost at once on this host, and that needs a person"):
        process = job.process()
        os.kill(process, signal.SIGKILL)
        _wait_until_gone(process)
        assert job.slurm("status", "small", "--json") == 1
        (shown,) = orjson.loads(job.output)
        assert (shown["state"], shown["needs_person"]) == ("lost", True)

    with journey.stage("a submit right after, and cancel before a process has claimed the run: nothing trains"):
        _submit_while_it_ends(journey, _controller(journey))
        controller = _controller(journey)
        os.kill(controller, signal.SIGSTOP)  # while it still starts: the signal finds nobody who could hand it on
        cancelling = job.start("cancel", "small", module="slurm")
        time.sleep(2)
        os.kill(controller, signal.SIGCONT)
        assert job.wait(cancelling) == 0, job.output
        assert job.status()["state"] == "cancelled"
        _wait_until_gone(controller)
        assert (job.status()["state"], job.status()["segment"]) == ("cancelled", journey.segment)
        journey.submit()
        journey.rest()

    with journey.stage("cancel, and a submit right after: submitit's controller is not taken for a run that goes on"):
        controller = _controller(journey)
        cancelling = job.start("cancel", "small", module="slurm")
        journey.go_on(until_signalled=True)
        assert job.wait(cancelling) == 0, job.output
        assert (job.status()["state"], job.status()["reason"]) == ("cancelled", "cancel")
        _submit_while_it_ends(journey, controller)
        journey.rest()
        assert journey.lost() == 0

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
        with journey.stage(number.name):
            if number != signal.SIGTERM:
                journey.submit()
                journey.rest()
                assert journey.lost() == 0
            controller = parent_of(job.process())
            os.kill(job.process(), number)
            journey.go_on()
            journey.wait_for_state("waiting")
            _wait_until_gone(controller)
            reason = "interrupt" if number == signal.SIGINT else "terminated"
            assert (job.status()["reason"], job.status()["exit_code"]) == (reason, 75)
            assert job.status()["segment"] == journey.segment, "it was started again"

    journey.finish()
    with journey.stage("a log that is followed ends with the run, each record once"):
        assert job.slurm("log", "small", "--follow", "--event", "step", "--fields", "step", "--csv") == 0
        assert job.output.split() == ["step", *(str(step) for step in range(LOGGED, journey.total + 1, LOGGED))]
    journey.compare()


def _controller(journey: Journey) -> int:
    """The process of submitit's executor that starts the run's processes."""
    return int(journey.job_id.removeprefix("local-"))


def _submit_while_it_ends(journey: Journey, controller: int) -> None:
    """Submit while the executor of the segment before sleeps a little longer: it is not taken for a run that goes on."""

    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended already
            os.kill(controller, number)

    send(signal.SIGSTOP)
    timer = threading.Timer(1.0, send, (signal.SIGCONT,))
    timer.start()
    journey.submit()
    timer.cancel()  # where there was nothing to wait for
    assert journey.job_id != f"local-{controller}"


def _wait_until_gone(process: int) -> None:
    deadline = time.monotonic() + 120
    while Path(f"/proc/{process}/exe").exists():  # a zombie has none
        assert time.monotonic() < deadline
        time.sleep(0.05)
