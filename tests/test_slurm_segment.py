"""What a signal in an allocation means, by Slurm's own view of the job."""

import signal

import pytest

from slurm.segment import Leave, _meaning_of_signal
from slurm.start import Start

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
        (TERM, {"JobState": "COMPLETING", "Reason": "TimeLimit", "Restarts": "1"}, ("time_limit", True)),
        (TERM, {"JobState": "COMPLETING", "Restarts": "2"}, ("requeue", False)),
        (TERM, {"JobState": "COMPLETING", "Restarts": "1", "Reason": "None"}, ("cancel", False)),
    ],
)
def test_slurms_view_of_the_job_tells_what_a_signal_means(
    number: signal.Signals, job: dict[str, str] | None, expected: tuple[str, bool] | None
) -> None:
    """Requeue, leave, or train on: an operator's scancel is never undone, and no end is missed."""
    leave: Leave | None = _meaning_of_signal(number, job, START)
    assert (None if leave is None else (leave.reason, leave.requeue)) == expected
