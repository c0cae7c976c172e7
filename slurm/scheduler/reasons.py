"""Why a job is pending: in Slurm's words, as one of five categories, and whether waiting helps."""

import re
from dataclasses import dataclass
from typing import Literal

Category = Literal["quota", "resources", "held", "dependency", "other"]


@dataclass(frozen=True)
class Reason:
    """Why a job will not start by itself: what that means, and what to type or do next, with the job's id as `{job}`."""

    sentence: str
    next: str


_RELEASE = "scontrol release {job}"


def _refused(sentence: str) -> Reason:
    return Reason(f"{sentence}: cancel it, and submit again with that changed", "aae-slurm cancel {run}")


# Reasons that no waiting resolves. Limits of a whole group (AssocGrpCpuLimit, QOSGrpGRES ...) wait for its other jobs and are
# not among them, unless what is spent is a budget.
_HELPLESS: list[tuple[str, Reason]] = [
    (r"JobHeldUser", Reason("held by its user", _RELEASE)),
    (r"JobHeldAdmin", Reason("held by an administrator, who alone can release it: ask", "scontrol show job {job}")),
    (r"launch_?failed_?requeued_?held", Reason("held because its start has failed on a node", _RELEASE)),
    (r"JobHoldMaxRequeue", Reason("held because it was requeued too often in a row", _RELEASE)),
    (r"DependencyNeverSatisfied", _refused("what it depends on has failed, so it never starts")),
    (r"BadConstraints", _refused("no node can ever fulfil its constraints (AAE_SLURM_CONSTRAINT)")),
    (r"PartitionTimeLimit", _refused("its time limit (AAE_SLURM_TIME) is longer than the partition's")),
    (r"PartitionNodeLimit", _refused("the partition has too few nodes for it")),
    (r"(Assoc|QOS)Max\w*PerJob\w*", _refused("it asks for more than one job of this account or QOS may have")),
    (
        r"(Assoc|QOS)Grp\w*(Minutes|Billing)\w*",
        _refused("the account's or QOS's budget is spent (AAE_SLURM_ACCOUNT, AAE_SLURM_QOS)"),
    ),
    (
        r"(InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed)",
        _refused("its account or QOS may not be used"),
    ),
]
_HELD_STATES = {
    "REQUEUE_HOLD": Reason("requeued and held", _RELEASE),
    "SPECIAL_EXIT": Reason("requeued and held with a special exit", _RELEASE),
}
# The first that fits; what fits none is `other`.
_CATEGORIES: list[tuple[str, Category]] = [
    (r"JobHeld\w*|JobHoldMaxRequeue|\w*held", "held"),
    (r"Dependency\w*", "dependency"),
    (r"(Assoc|QOS|MaxCpuPer|MaxMemPer)\w*|\w*(Account|QOS)(NotAllowed)?|JobArrayTaskLimit|Partition\w*Limit", "quota"),
    (r"Resources|Priority|ReqNodeNotAvail\W?.*|Licenses|Nodes_required.*|NodeDown|BadConstraints", "resources"),
    (r"Partition\w*|Reservation\w*|BurstBuffer\w*|FrontEndDown|Cleaning|RegionalAffinity", "resources"),
]
_WAITING = {
    "JobArrayTaskLimit": "waits for its turn (--parallel)",
    "Dependency": "waits for other jobs to end",
    "PartitionDown": "the partition is down, an administrator's matter",
    "PartitionInactive": "the partition is inactive, an administrator's matter",
    "Priority": "other jobs go first",
    "Resources": "first in line for a place on the nodes",
    "BeginTime": "its time to begin has not come, as just after a requeue",
    "None": "Slurm has not looked at it yet",
    "PartitionConfig": "no node of the partition that is up has what it asks for; `aae-slurm check` says if none ever has",
    "ReqNodeNotAvail": "a node that it needs is away",
    "Reservation": "its reservation has not begun",
    "Licenses": "waits for licences",
}


def helpless(state: str, reason: str) -> Reason | None:
    """What keeps a pending job from ever starting by itself; None if waiting helps, or may."""
    word = _word(reason)
    return next(
        (what for pattern, what in _HELPLESS if re.fullmatch(pattern, word, re.IGNORECASE)), _HELD_STATES.get(state)
    )


def category_of(state: str, reason: str) -> Category:
    """Which kind of reason keeps a pending job waiting."""
    if state in _HELD_STATES:
        return "held"
    word = _word(reason)
    return next((what for pattern, what in _CATEGORIES if re.fullmatch(pattern, word, re.IGNORECASE)), "other")


def explained(reason: str) -> str:
    """A reason as people read it."""
    word = re.split(r"[,(]", reason)[0].strip()
    if word in _WAITING:
        return f"{reason}: {_WAITING[word]}"
    if re.fullmatch(r"(Assoc|QOS)\w+", word) and helpless("PENDING", reason) is None:
        return f"{reason}: a limit of the account or QOS, until other jobs end"
    return reason


def _word(reason: str) -> str:
    """A reason without what newer and older releases write differently."""
    return re.sub(r"\s+", "_", reason.strip("()").strip())
