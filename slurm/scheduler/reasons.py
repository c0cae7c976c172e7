"""Why a job is pending, in Slurm's words, and whether waiting helps."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why a job will not start by itself: what that means, and what to type or do next, with the job's id as `{job}`."""

    sentence: str
    next: str


_RELEASE = "scontrol release {job}"
_RESUBMIT = "aae-slurm cancel {run}  # then submit again with what is refused changed"

# Reasons that no waiting resolves. Limits of a whole group (AssocGrpCpuLimit, QOSGrpGRES ...) wait for its other jobs and are
# not among them, unless what is spent is a budget.
_HELPLESS: list[tuple[str, Reason]] = [
    (r"JobHeldUser", Reason("held by its user", _RELEASE)),
    (r"JobHeldAdmin", Reason("held by an administrator, who alone can release it: ask", "scontrol show job {job}")),
    (r"launch_?failed_?requeued_?held", Reason("held because its start has failed on a node", _RELEASE)),
    (r"JobHoldMaxRequeue", Reason("held because it was requeued too often in a row", _RELEASE)),
    (r"DependencyNeverSatisfied", Reason("what it depends on has failed, so it never starts", _RESUBMIT)),
    (r"BadConstraints", Reason("no node can ever fulfil its constraints (AAE_SLURM_CONSTRAINT)", _RESUBMIT)),
    (r"PartitionTimeLimit", Reason("its time limit (AAE_SLURM_TIME) is longer than the partition's", _RESUBMIT)),
    (r"PartitionNodeLimit", Reason("the partition has too few nodes for it", _RESUBMIT)),
    (r"(Assoc|QOS)Max\w*PerJob\w*", Reason("it asks for more than one job of this account or QOS may have", _RESUBMIT)),
    (
        r"(Assoc|QOS)Grp\w*(Minutes|Billing)\w*",
        Reason("the account's or QOS's budget is spent (AAE_SLURM_ACCOUNT, AAE_SLURM_QOS)", _RESUBMIT),
    ),
    (
        r"(InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed)",
        Reason("its account or QOS may not be used", _RESUBMIT),
    ),
]
_HELD_STATES = {
    "REQUEUE_HOLD": Reason("requeued and held", _RELEASE),
    "SPECIAL_EXIT": Reason("requeued and held with a special exit", _RELEASE),
}
_WAITING = {
    "JobArrayTaskLimit": "waits for its turn (--parallel)",
    "Dependency": "waits for other jobs to end",
    "PartitionDown": "the partition is down, an administrator's matter",
    "PartitionInactive": "the partition is inactive, an administrator's matter",
}


def helpless(state: str, reason: str) -> Reason | None:
    """What keeps a pending job from ever starting by itself; None if waiting helps, or may."""
    word = re.sub(r"[\s]+", "_", reason.strip("()").strip())
    return next(
        (what for pattern, what in _HELPLESS if re.fullmatch(pattern, word, re.IGNORECASE)), _HELD_STATES.get(state)
    )


def explained(reason: str) -> str:
    """A reason as people read it."""
    return f"{reason}: {_WAITING[reason]}" if reason in _WAITING else reason
