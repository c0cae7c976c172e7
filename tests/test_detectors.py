"""What a run's last segments have in common, and what a finished one had no need of: pure functions, as tables."""

import pytest

from job.config.allocation import Allocation
from job.rundir.claim import Segment
from job.rundir.liveness import Owner
from job.rundir.status import Status, iso
from slurm.login.allotment import advice
from slurm.login.detectors import Past, no_new_checkpoint, same_node

NOW = 1_800_000_000.0


def _past(
    node: str | None, from_step: int | None, cause: str | None, *, began_s: float | None = 0, lasted_s: float = 30
) -> Past:
    began = NOW + began_s if began_s is not None else None
    owner = Owner.this_process("7", node=node)
    segment = Segment.model_validate({"owner": owner, "from_step": from_step, "began_at": began, "cause": cause})
    return Past(segment, began + lasted_s if began is not None and cause is not None else None)


@pytest.mark.parametrize(
    ("segments", "checkpoint_step", "alive", "found"),
    [
        ([(0, "time_limit"), (0, "killed")], 0, False, "(1 by killed, 1 by time_limit)"),
        ([(40, None), (40, "hung"), (40, "hung")], 40, False, "last 3 segments, which went on from step 40"),
        ([(0, "killed"), (None, "killed")], 0, False, "last 2 segments"),
        ([(0, "exception"), (0, "exception")], 0, False, "--event failed"),
        ([(0, "killed"), (0, "killed"), (0, None)], 0, True, "last 2 segments"),
        ([(0, "killed"), (0, "killed"), (0, None)], 10, True, None),  # the one that trains has saved
        ([(0, "killed"), (10, "killed")], 10, False, None),
        ([(0, "killed"), (10, "killed")], 20, False, None),
        ([(0, "killed")], 0, False, None),
        ([(0, "interrupt"), (0, "cancel"), (0, "killed")], 0, False, None),  # a person's
        ([], 0, False, None),
    ],
)
def test_segments_of_which_no_checkpoint_came_are_told(
    segments: list[tuple[int | None, str | None]], checkpoint_step: int, alive: bool, found: str | None
) -> None:
    """Two in a row or more, up to the newest that has ended."""
    finding = no_new_checkpoint([_past("n1", *segment) for segment in segments], checkpoint_step, alive=alive)
    assert (finding is None) == (found is None)
    assert finding is None or (found or "") in finding.sentence


@pytest.mark.parametrize(
    ("segments", "alive", "avoided", "node"),
    [
        ([("n1", "killed", 0, 30), ("n1", "hung", 200, 30)], False, set(), "n1"),
        (
            [("n1", "killed", 0, 30), ("n2", "killed", 200, 5000), ("n2", "no_gpu", None, 0), ("n2", None, 9000, 0)],
            False,
            set(),
            "n2",
        ),
        ([("n2", "killed", 0, 30), ("n1", "killed", 200, 30)], False, set(), None),
        ([("n1", "killed", 0, 30), ("n1", "killed", 200, 30)], False, {"n1"}, None),  # avoided already
        ([("n1", "killed", 0, 3000), ("n1", "killed", 5000, 3000)], False, set(), None),  # not short
        ([("n1", "time_limit", 0, 30), ("n1", "preemption", 200, 30)], False, set(), None),  # no fault
        ([(None, "killed", 0, 30), (None, "killed", 200, 30)], False, set(), None),
        ([("n1", "killed", -9000, 30), ("n1", "killed", -8000, 30), ("n1", None, -60, 0)], True, set(), "n1"),
        (
            [("n1", "killed", -9000, 30), ("n1", "killed", -8000, 30), ("n1", None, -7000, 0)],
            True,
            set(),
            None,
        ),  # goes well
    ],
)
def test_a_node_that_ends_every_segment_soon_is_named(
    segments: list[tuple[str | None, str | None, float | None, float]], alive: bool, avoided: set[str], node: str | None
) -> None:
    """With the setting that keeps the run off it."""
    past = [_past(name, 0, cause, began_s=began, lasted_s=lasted) for name, cause, began, lasted in segments]
    finding = same_node(past, NOW if alive else NOW + 9010, avoided, alive=alive)
    assert (finding is None) == (node is None)
    assert finding is None or f"AAE_SLURM_EXCLUDE={node} " in finding.sentence


def test_an_exception_that_comes_back_at_the_same_step_is_no_nodes_fault() -> None:
    """It would come anywhere; one that wanders may be the node's."""
    for steps, blamed in (((7, 7), False), ((7, 9), True)):
        past = [_past("n1", 0, "exception", began_s=200 * number) for number in range(2)]
        failed = [
            Past(one.segment.model_copy(update={"failed_at": step}), one.ended_at)
            for one, step in zip(past, steps, strict=True)
        ]
        assert (same_node(failed, NOW + 900, set(), alive=False) is not None) == blamed


@pytest.mark.parametrize(
    ("used_mb", "took_s", "segment", "found"),
    [
        (700, 100, 1, "it used 700 of 4,096 MiB of memory and 1 min 40 s of 24 h 00 min; for a run like it: "
         "AAE_SLURM_MEM=1024M AAE_SLURM_TIME=00:05:00"),
        (3000, 20 * 3600, 1, None),
        (3900, 20 * 3600, 1, "it used 3,900 of 4,096 MiB of memory; for a run like it: AAE_SLURM_MEM=5120M"),
        (3000, 2 * 3600, 1, "it used 2 h 00 min of 24 h 00 min; for a run like it: AAE_SLURM_TIME=03:30:00"),
        (3000, 100, 2, None),  # each of several segments has used its time
        (None, None, 1, None),
    ],
)  # fmt: skip
def test_a_finished_run_says_what_the_next_may_ask_for(
    used_mb: float | None, took_s: float | None, segment: int, found: str | None
) -> None:
    """Only where that is another setting."""
    status = Status(
        state="finished",
        total_steps=9,
        segment=segment,
        updated_at=iso(NOW),
        started_at=iso(NOW - took_s) if took_s is not None else None,
        peak_memory_bytes=int(used_mb * 2**20) if used_mb is not None else None,
    )
    assert advice(status, Allocation()) == found
    assert advice(status.model_copy(update={"state": "failed"}), Allocation()) is None
    assert "MEM" not in (advice(status, Allocation(mem=None)) or "")
    assert "MEM" not in (advice(status, Allocation(mem="0")) or "")
