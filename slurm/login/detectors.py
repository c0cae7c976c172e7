"""What a run's last segments have in common that no single one of them tells: no checkpoint came of them, or one node ends them."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from job.config.allocation import Allocation
from job.rundir.claim import Cause, Segment, read_segment
from job.rundir.directory import RunDir
from job.rundir.status import Status

LOOKED_AT = 10  # segments, the newest of a run
LEAST = 2  # of one kind in a row are told
SHORT_S = 600.0  # a segment that something has ended earlier than this is short

# Ends that say nothing of what hinders a run: a person's, or its own.
_MEANT: frozenset[Cause | None] = frozenset(
    {"finished", "saturated", "cancel", "interrupt", "refused", "elsewhere", "no_graph"}
)
# Ends that a bad node may be the reason of; None is one without a word.
_FAULTS: frozenset[Cause | None] = frozenset(
    {"exception", "out_of_memory", "killed", "hung", "no_gpu", "storage", None}
)


@dataclass(frozen=True)
class Past:
    """A segment and when it ended, in seconds since the epoch; None where it lives, or has ended without a word."""

    segment: Segment
    ended_at: float | None = None


@dataclass(frozen=True)
class Finding:
    """What a detector has found: `detector` is a word for programs, `sentence` for people, with what to do."""

    detector: Literal["no_new_checkpoint", "same_node"]
    sentence: str


def detect(run_dir: RunDir, status: Status, allocation: Allocation | None, *, alive: bool) -> list[Finding]:
    """What both detectors find in a run's last segments; `alive` tells that the newest still trains."""
    first = max(1, status.segment - LOOKED_AT + 1)
    segments = [past for number in range(first, status.segment + 1) if (past := _past(run_dir, number)) is not None]
    avoided = {*status.avoided_nodes, *((allocation.exclude or "").split(",") if allocation is not None else ())}
    last_sign = datetime.fromisoformat(status.updated_at).timestamp()
    found = (
        # The verdict of one that has failed says so itself.
        no_new_checkpoint(segments, status.checkpoint_step or 0, alive=alive) if status.state != "failed" else None,
        same_node(segments, last_sign, avoided, alive=alive),
    )
    return [finding for finding in found if finding is not None]


def _past(run_dir: RunDir, number: int) -> Past | None:
    with contextlib.suppress(OSError):
        segment = read_segment(run_dir, number)
        if segment is not None:
            ended_at = run_dir.claim_file(number).stat().st_mtime if segment.cause is not None else None
            return Past(segment, ended_at)
    return None


def no_new_checkpoint(segments: Sequence[Past], checkpoint_step: int, *, alive: bool) -> Finding | None:
    """Whether nothing has come of the last segments, oldest first, that ended: all went on from the same checkpoint."""
    causes: list[str] = []
    end = checkpoint_step
    for number, past in enumerate(reversed(segments)):
        segment = past.segment
        if segment.from_step is not None:
            if end > segment.from_step:
                break
            end = segment.from_step
        if not (alive and number == 0) and segment.cause not in _MEANT:
            causes.append(segment.cause or "without a word")
    if len(causes) < LEAST:
        return None
    ends = ", ".join(f"{count} by {cause}".replace("by without", "without") for cause, count in Counter(causes).items())
    is_error = {*causes} <= {"exception", "out_of_memory", "no_gpu", "hopeless"}
    what = (
        "its log tells why (`aae-slurm log RUN --event failed`)"
        if is_error
        else "save more often (AAE_CHECKPOINT_EVERY_S, AAE_CHECKPOINT_EVERY_STEPS), or ask for more time (AAE_SLURM_TIME)"
    )
    return Finding(
        "no_new_checkpoint",
        f"no new checkpoint has come of the last {len(causes)} segments, which went on from step {end:,} and ended "
        f"({ends}) before they saved: {what}",
    )


def same_node(segments: Sequence[Past], last_sign: float, avoided: set[str], *, alive: bool) -> Finding | None:
    """Whether the last segments, oldest first, that ended were short and all on one node, which the run does not avoid yet.

    Not where an exception has ended each at the same step: that is the run's own.
    """
    nodes: list[str | None] = []
    failed_at: set[int | None] = set()
    next_began = last_sign
    for number, past in enumerate(reversed(segments)):
        segment = past.segment
        began = segment.began_at
        lasted_s = (past.ended_at if past.ended_at is not None else next_began) - began if began is not None else 0.0
        next_began = began if began is not None else next_began
        if alive and number == 0:
            if last_sign - (began if began is not None else last_sign) >= SHORT_S:
                return None
            continue
        if segment.cause not in _FAULTS or lasted_s >= SHORT_S or (nodes and segment.owner.node != nodes[0]):
            break
        nodes.append(segment.owner.node)
        failed_at.add(segment.failed_at)
    node = nodes[0] if nodes else None
    if len(nodes) < LEAST or node is None or node in avoided or (len(failed_at) == 1 and None not in failed_at):
        return None
    return Finding(
        "same_node",
        f"the last {len(nodes)} segments were short and ended on node {node}: AAE_SLURM_EXCLUDE={node} keeps the run off it",
    )
