"""What a signal in an allocation means, by Slurm's own view of the job."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from commands import Commands
from jobs import Job

from job.rundir.cancel import CancelMark
from job.rundir.claim import Segment, newest_claim
from job.rundir.directory import create_exclusively
from job.rundir.liveness import Owner, process_start_of
from job.rundir.status import now, read_status, write_status
from slurm import aftermath
from slurm.node import leave as leaving
from slurm.node.leave import Leave, _meaning_of_signal, decide
from slurm.node.limit import Limit
from slurm.node.signals import AllocationStop
from slurm.node.start import Start
from slurm.scheduler.queue import Job as QueuedJob

START = Start("5", restart_count=1, local=False)
USR2, TERM = signal.SIGUSR2, signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "job", "expected"),
    [
        (USR2, None, ("time_limit", True)),
        (USR2, {"JobState": "RUNNING", "PreemptTime": "None"}, ("time_limit", True)),
        (USR2, {"JobState": "RUNNING", "PreemptTime": "2026-01-01T00:00:00"}, ("preemption", True)),
        (USR2, {"JobState": "COMPLETING", "Restarts": "2"}, ("preemption", False)),
        (USR2, {"JobState": "COMPLETING", "Restarts": "1"}, ("cancel", False)),
        (TERM, None, None),
        (TERM, {"JobState": "RUNNING", "PreemptTime": "None"}, None),
        (TERM, {"JobState": "RUNNING", "PreemptTime": "2026-01-01T00:00:00"}, ("preemption", True)),
        (TERM, {"JobState": "SIGNALING", "PreemptTime": "2026-01-01T00:00:00", "Restarts": "1"}, ("preemption", True)),
        (USR2, {"JobState": "SIGNALING", "PreemptTime": "None", "Restarts": "1"}, ("time_limit", True)),
        (TERM, {"JobState": "COMPLETING", "Reason": "TimeLimit", "Restarts": "1"}, ("time_limit", True)),
        (TERM, {"JobState": "COMPLETING", "Restarts": "2"}, ("requeue", False)),
        (TERM, {"JobState": "COMPLETING", "Restarts": "1", "Reason": "None"}, ("cancel", False)),
        (TERM, {"JobState": "COMPLETING", "Restarts": "1", "PreemptTime": "2026-01-01T00:00:00"}, ("preemption", True)),
        (TERM, {"JobState": "PREEMPTED", "Restarts": "1", "PreemptTime": "2026-01-01T00:00:00"}, ("preemption", True)),
    ],
)
def test_slurms_view_of_the_job_tells_what_a_signal_means(
    number: signal.Signals, job: dict[str, str] | None, expected: tuple[str, bool] | None
) -> None:
    """Requeue, leave, or train on: an operator's scancel is never undone, and no end is missed."""
    leave: Leave | None = _meaning_of_signal(number, job, START)
    assert (None if leave is None else (leave.reason, leave.requeue)) == expected


@pytest.mark.parametrize(
    ("number", "queue", "expected"),
    [
        ("12", None, "12_3"),  # no answer, but nothing else can bear the array's number
        ("12", [("12_5", "12", "PENDING"), ("12_3", "12", "RUNNING")], "12_3"),
        ("14", [("12_3", "14", "RUNNING")], "12_3"),
        ("15", [("15", "15", "RUNNING")], "15"),  # submitted by an element, whose variables it has inherited
        ("15", None, "15"),
    ],
)
def test_an_element_of_an_array_is_called_by_array_and_task(
    number: str, queue: list[tuple[str, str, str]] | None, expected: str, commands: Commands
) -> None:
    """Whatever its number is."""
    commands.queue(QueuedJob(one, other, "7", state, "None", "(null)") for one, other, state in queue or [])
    if queue is None:
        commands.add("squeue", "exit 1")
    start = Start.of({"SLURM_JOB_ID": number, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"})
    assert start is not None
    assert (start.job_id, start.number) == (expected, number)


def test_a_run_that_an_element_has_begun_under_its_number_goes_on() -> None:
    """An earlier version wrote the number into claims, status and marks: the next start is of the same job."""
    start = Start("12_3", 1, local=False, number="12")
    assert Owner.this_process("12", 0).is_earlier_start(start.owner)
    assert start.is_of("12")
    assert CancelMark(job_id="12", host=None, pid=None, time=now()).names(start.owner)
    assert not Owner.this_process("13", 0).is_earlier_start(start.owner)
    assert not Owner.this_process(None, 0).is_earlier_start(Owner.this_process(None, 1))


@pytest.fixture
def stop() -> Iterator[AllocationStop]:
    """Handlers as in an allocation, taken away afterwards."""
    before = {number: signal.getsignal(number) for number in (*AllocationStop.ASKING, signal.SIGCONT)}
    yield AllocationStop()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("comes_after_s", "reason"), [(0.0, "preemption"), (0.2, "preemption"), (None, "requeue")])
def test_a_preemption_without_a_grace_time_is_known_by_a_sigusr2_behind_the_sigterm(
    comes_after_s: float | None, reason: str, stop: AllocationStop, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm sends both, apart from each other; on a busy node the SIGTERM may be served before the other has come."""
    commands.shows({"JobState": "COMPLETING", "Restarts": "2"})
    os.kill(os.getpid(), signal.SIGTERM)
    asked = stop()
    assert asked == "terminated"
    if comes_after_s is not None:
        monkeypatch.setattr(leaving, "USER_SIGNAL_WAIT_S", 10.0)
        threading.Timer(comes_after_s, os.kill, (os.getpid(), signal.SIGUSR2)).start()
    leave = decide(asked, stop, START)
    assert leave is not None
    assert (leave.reason, leave.requeue, leave.slurm_restarts) == (reason, False, True)


def test_a_sigusr2_that_comes_before_slurm_tells_of_the_preemption_is_looked_at_again(
    stop: AllocationStop, commands: Commands
) -> None:
    """Else it would be taken for the time limit's, and the run would ask for a requeue that Slurm makes by itself."""
    commands.shows({"JobState": "RUNNING", "PreemptTime": "None"}, {"JobState": "COMPLETING", "Restarts": "2"})
    os.kill(os.getpid(), signal.SIGUSR2)
    asked = stop()
    assert asked == "time_limit"
    leave = decide(asked, stop, START)
    assert leave is not None
    assert (leave.reason, leave.requeue) == ("preemption", False)


@pytest.mark.parametrize(
    ("fields", "near"),
    [
        ({"JobState": "RUNNING", "EndTime": "1000"}, True),
        ({"JobState": "COMPLETING", "EndTime": "1000"}, False),  # scancel: its SIGCONT comes before its SIGTERM
        ({"JobState": "RUNNING", "EndTime": "99999999999"}, False),
        ({"JobState": "RUNNING", "EndTime": "Unknown"}, False),
        ({}, False),
    ],
)
def test_the_end_of_a_job_that_somebody_ends_is_not_its_limit(
    fields: dict[str, str], near: bool, commands: Commands
) -> None:
    """Else the run would leave for the time limit, and have a cancelled job started again."""
    limit = Limit("5", {"SLURM_JOB_END_TIME": "99999999999"})
    commands.shows(fields)
    assert limit.is_near(10.0, look_anew=True) == near


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (None, ("time_limit", True)),
        ({"JobState": "RUNNING"}, ("time_limit", True)),
        ({"JobState": "COMPLETING", "Reason": "TimeLimit"}, ("time_limit", True)),
        ({"JobState": "COMPLETING", "Restarts": "1", "Reason": "None"}, ("cancel", False)),
    ],
)
def test_a_job_that_is_cancelled_while_it_leaves_by_its_clock_is_not_started_again(
    fields: dict[str, str] | None, expected: tuple[str, bool], stop: AllocationStop, commands: Commands
) -> None:
    """The save took a while, in which somebody called scancel."""
    stop.time_is_up = lambda: True
    asked = stop()
    assert asked == "time_limit"
    commands.shows(fields)
    leave = decide(asked, stop, START)
    assert leave is not None
    assert (leave.reason, leave.requeue) == expected


def test_a_task_that_comes_to_life_behind_a_dead_srun_is_started_again(
    small_job: Job, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims the run while its death is put on record: still the job is started again; so it is while it lives, and after."""
    small_job.interrupt(TERM, at_step=20)
    run_dir = small_job.run_dir
    status = read_status(run_dir)
    assert status is not None
    write_status(run_dir, status.model_copy(update={"state": "waiting"}))
    commands.shows({"JobState": "RUNNING"})
    opened = os.open

    def num_requeues() -> int:
        return commands.calls.count("scontrol requeue 5")

    with subprocess.Popen(["sleep", "60"]) as task:

        def claim_meanwhile(path: Any, *how: Any) -> int:
            if path == run_dir.events_file:  # on which its death is to be put on record
                os.open = opened
                owner = {"pid": task.pid, "process_start": process_start_of(task.pid)}
                segment = Segment(owner=Owner.this_process("5").model_copy(update=owner))
                path_of_claim = run_dir.claim_file(newest_claim(run_dir) + 1)
                create_exclusively(path_of_claim, segment.model_dump_json().encode())
            return opened(path, *how)

        monkeypatch.setattr(os, "open", claim_meanwhile)
        monkeypatch.setenv("SLURM_JOB_ID", "5")
        aftermath.main([str(run_dir.path), "137"])
        assert num_requeues() == 1
        aftermath.main([str(run_dir.path), "137"])
        assert (num_requeues(), small_job.events("failed")) == (2, [])
        task.kill()
    aftermath.main([str(run_dir.path), "137"])
    assert [record["reason"] for record in small_job.events("failed")] == ["killed"]
    assert num_requeues() == 3


SIGNALLED_ON_THE_WAY_OUT = """
import os, signal, sys
from job import output

def leave(code, at_once=output.leave):
    print("leaving")
    os.kill(os.getpid(), signal.SIGUSR2)
    at_once(code)

output.leave = leave
from job.__main__ import command as aae_job
from slurm.__main__ import command as aae_slurm
from slurm.task import Task
"""


def _run_signalled_on_the_way_out(job: Job, call: str) -> None:
    program = f"{SIGNALLED_ON_THE_WAY_OUT}sys.argv[1:] = {['run'] if 'slurm' in call else []}\n{call}"
    environment = {**job.environment, "SLURM_JOB_ID": "5", "AAE_MAX_STEPS": "20"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{call}: {ended.stdout}{ended.stderr}"
    assert ended.stdout.endswith("leaving\n"), "it did not end at once"
    assert job.status()["state"] == "finished"


@pytest.mark.parametrize("call", ["aae_slurm()", "aae_job()"])
def test_a_signal_on_the_way_out_does_not_fail_a_finished_run(call: str, small_job: Job) -> None:
    """The time limit may come near while the process ends: the run is finished, and its exit code stays 0."""
    _run_signalled_on_the_way_out(small_job, call)
    # What submitit calls; here it finds the run finished, and leaves as it does when it has finished it.
    _run_signalled_on_the_way_out(small_job, f"Task({str(small_job.run_dir.path)!r})()")
