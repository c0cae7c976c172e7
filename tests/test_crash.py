"""The allowance for automatic restarts, and the story of a crash."""

from pathlib import Path
from typing import Any

import pytest

from job.errors import HopelessError, UsageError
from job.log.reader import read_lines
from job.log.writer import EventLog
from job.rundir.claim import Claim, Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.outbox import Outbox
from job.segment.crash import crash_of, settle
from job.segment.restarts import used_up


def _history(run_dir: RunDir, *segments: tuple[Any, ...]) -> Segment:
    """Write a claim for each (job, cause, from_step[, failed_at]); returns the last."""
    for number, (job, cause, from_step, *failed_at) in enumerate(segments, start=1):
        owner = Owner.this_process(job, number)
        segment = Segment(owner=owner, cause=cause, from_step=from_step, failed_at=failed_at[0] if failed_at else None)
        run_dir.claim_file(number).parent.mkdir(exist_ok=True)
        run_dir.claim_file(number).write_text(segment.model_dump_json())
    return segment


@pytest.mark.parametrize(
    ("segments", "saved_step", "expected"),
    [
        # Three that came to nothing, whatever mixture of crashes and time limits.
        ([("5", "killed", 0)] * 3, 0, "3 segments in a row have ended without a checkpoint beyond step 0"),
        ([("5", "time_limit", 7), ("5", "killed", 7), ("5", "out_of_memory", 7)], 7, "3 segments in a row"),
        # One that never loaded has no step to have begun with.
        ([("5", "killed", 7), ("5", "killed", None), ("5", "time_limit", 7)], 7, "3 segments in a row"),
        # Two are not three; a new checkpoint starts the count anew; another job's segments do not count.
        ([("5", "killed", 0)] * 2, 0, None),
        ([("5", "killed", 0)] * 3, 1, None),
        ([("5", "killed", 0), ("5", "killed", 0), ("5", "time_limit", 0), ("5", "killed", 8)], 8, None),
        ([("4", "killed", 0), ("4", "killed", 0), ("5", "killed", 0)], 0, None),
        # Preemptions, requeues by an operator and lost nodes neither count nor start the count anew.
        ([("5", "preemption", 3)] * 9, 3, None),
        ([("5", None, 3)] * 9 + [("5", "killed", 3)], 3, None),
        (
            [("5", "killed", 3), ("5", None, 3), ("5", "killed", 3), ("5", "requeue", 3), ("5", "killed", 3)],
            3,
            "3 segm",
        ),
        # Time limits are without limit while the run advances.
        ([("5", "time_limit", step) for step in range(50)], 50, None),
        # A bad checkpoint throws back: that is no progress.
        ([("5", "killed", 9), ("5", "killed", 5), ("5", "killed", 5)], 5, "3 segments in a row"),
        # Exceptions at one step end it although checkpoints were made before it.
        (
            [("5", "exception", 0, 9), ("5", "exception", 4, 9), ("5", "exception", 8, 9)],
            8,
            "in an exception at step 9",
        ),
        ([("5", "exception", 0, 9), ("5", "exception", 4, 8), ("5", "exception", 8, 9)], 9, None),
        ([("5", "exception", 0, 9), ("5", "preemption", 4), ("5", "exception", 8, 9)], 9, None),
    ],
)
def test_the_allowance(tmp_path: Path, segments: list[Any], saved_step: int, expected: str | None) -> None:
    """What ends a run and what does not, by the claims alone."""
    run_dir = RunDir(tmp_path)
    last = _history(run_dir, *segments)
    told = used_up(run_dir, len(segments), last, saved_step, 3)
    assert (told is None) == (expected is None)
    assert expected is None or expected in str(told)


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (ValueError("x"), "exception", 1),
        (MemoryError(), "out_of_memory", 1),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", 1),
        (HopelessError("disk", "x"), "disk", 3),
        (UsageError("x"), "refused", 2),
    ],
)
def test_a_crash_is_told_with_its_cause(tmp_path: Path, error: Exception, reason: str, exit_code: int) -> None:
    """The error, where, with how much memory; and only what a restart may help is started again."""
    run_dir = RunDir(tmp_path)
    claim = Claim(run_dir, 1, _history(run_dir, ("5", None, 0)))
    crash = crash_of(error, run_dir, 12, "cuda (H100)")
    assert (crash.reason, crash.exit_code, crash.step) == (reason, exit_code, 12)
    assert ("larger GPU" in crash.error) == (reason == "out_of_memory")
    told = settle(run_dir, claim, EventLog(run_dir, 1, Outbox(run_dir)), crash, 10, 3)
    assert told["state"] == ("waiting" if exit_code == 1 else "failed")
    assert claim.segment.cause in (reason, "hopeless")
    (line,) = read_lines(run_dir.events_file)
    assert b'"event":"failed"' in line
    assert told["crash"]["device"] == "cuda (H100)"
