"""A step that never ends: the process ends itself with its story, and a job comes back; one that stood still goes on."""

import signal
import subprocess
import sys
import time

import pytest
from jobs import Job

from job.proofs.exactness import Traces
from job.segment.watchdog import AT_LEAST_S, FACTOR, Watchdog
from job.training.clock import Clock
from job.training.trainer import Trainer

# A GPU that is lost looks like this: a call that never returns, in which other threads live on.
HANGING = """
import sys, threading, time

def hang(after_calls, lock=threading.Lock()):
    import torch
    real, calls = torch.addcmul, [0]  # which a step calls once

    def addcmul(*arguments, **options):
        if threading.current_thread() is threading.main_thread():
            calls[0] += 1
            if calls[0] == after_calls:
                lock.acquire(); lock.acquire()
        return real(*arguments, **options)

    torch.addcmul = addcmul
"""


@pytest.mark.process
def test_a_step_that_never_ends_ends_the_process_with_its_story(small_job: Job, uninterrupted: Traces) -> None:
    """Heartbeat and all are alive, and the loop is not: on record with where it hangs; the same command goes on."""
    program = f"{HANGING}\nfrom job.__main__ import main\nhang(50)\nsys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**small_job.environment, "AAE_STEP_LIMIT_S": "2", "AAE_ON_END": 'echo "it has $AAE_STATE"'},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "AAE_STEP_LIMIT_S" in done.stderr
    assert "it has failed" in done.stdout
    (failed,) = small_job.events("failed")
    assert (failed["reason"], failed["exit_code"]) == ("hung", 1)
    assert "in addcmul" in failed["traceback"]
    status = small_job.status()
    assert (status["state"], status["reason"]) == ("failed", "hung")
    assert status["progress_at"] <= status["updated_at"]
    assert small_job.run() == 0, small_job.output
    assert [record["previous"] for record in small_job.events("resumed")] == ["failed (hung)"]
    assert small_job.traces() == uninterrupted


@pytest.mark.waits(15)
@pytest.mark.process
def test_a_process_that_stood_still_does_not_hang(small_job: Job) -> None:
    """As under `scontrol suspend`: that time does not count."""
    began = time.monotonic()
    process = small_job.start_to_rest(100, step_limit_s=2)
    time.sleep(14)
    process.send_signal(signal.SIGCONT)
    assert small_job.wait(process) == 0, small_job.output
    assert small_job.events("failed") == []
    (warning,) = small_job.events("warning")
    assert (warning["reason"], "stood still for" in warning["message"]) == ("suspended", True)
    assert small_job.events("step")[-1]["elapsed_s"] < time.monotonic() - began - 10


@pytest.mark.parametrize("told_after_the_record", [False, True])
def test_time_that_stood_still_is_taken_off_whenever_it_is_told(
    told_after_the_record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop may write a record before the watchdog has looked: no later one has a speed below zero, or half of it missing."""
    now = [100.0]
    monkeypatch.setattr("job.training.clock.time.perf_counter", lambda: now[0])
    clock = Clock()
    with clock.running():
        now[0] += 10
        assert clock.lap(100) == 10
        now[0] += 5 + 3600
        if told_after_the_record:
            assert clock.lap(150) == 50 / 3605
        clock.stood_still(3600)
        now[0] += 5
        assert clock.lap(200) == 10
        assert (clock.elapsed_s, clock.step_ms(200)) == (20, 100)


def test_time_that_stood_still_before_training_is_not_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once it has begun: it was never counted."""
    now = [100.0]
    monkeypatch.setattr("job.training.clock.time.perf_counter", lambda: now[0])
    clock = Clock()
    clock.go_on_from(50, 7.0)
    with clock.running():
        clock.stood_still(3600)
        now[0] += 5
        assert clock.lap(100) == 10
        assert clock.elapsed_s == 12


def test_a_step_in_which_it_stood_still_is_not_the_slowest() -> None:
    """Else a later one might hang twenty times as long as the job was suspended."""
    trainer = object.__new__(Trainer)
    trainer.clock, trainer.slowest_step_s = Clock(), 3601.0
    trainer.stood_still(3600)
    assert trainer.slowest_step_s == 1


class _Steps:
    computing_since: float | None = 1.0
    slowest_step_s = 100.0

    def stood_still(self, seconds: float) -> None:
        raise AssertionError


def test_the_limit_follows_the_slowest_step_seen() -> None:
    """Unless one is given, which may be any."""
    steps = _Steps()
    assert Watchdog(None, lambda *_: 1)._limit(steps) == FACTOR * 100
    steps.slowest_step_s = 1.0
    assert Watchdog(None, lambda *_: 1)._limit(steps) == AT_LEAST_S
    assert Watchdog(0.5, lambda *_: 1)._limit(steps) == 0.5
