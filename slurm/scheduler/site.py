"""What a cluster is: its rules for preemption and requeues, its partitions and nodes, as scontrol and sinfo tell them."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from job.config.allocation import minutes
from slurm.scheduler.ask import ask
from slurm.scheduler.queue import SCONTROL_TIMEOUT_S

TIMEOUT_S = 10.0
_DEFAULT_CRED_EXPIRE_S = 120
_LEAST_CRED_EXPIRE_S = 5  # a lower one means the default
_NO_LIMIT = ("", "UNLIMITED", "NONE", "INFINITE", "N/A", "(null)")
_UNUSABLE = ("down", "drain", "fail", "unk", "inval", "no_respond")
_OF_CONFIG = (
    "AccountingStorageType",
    "AuthInfo",
    "ClusterName",
    "EnforcePartLimits",
    "JobRequeue",
    "KillWait",
    "MaxArraySize",
    "MaxJobCount",
    "OverTimeLimit",
    "PreemptExemptTime",
    "PreemptMode",
    "PreemptParameters",
    "PreemptType",
    "SLURM_VERSION",
    "SlurmctldParameters",
)


@dataclass(frozen=True)
class Partition:
    """A partition: `max_time_min` and `max_cpus` (of a node) are None without a limit, `tier` is its PriorityTier."""

    name: str
    is_default: bool
    state: str
    max_time_min: int | None
    max_cpus: int | None
    preempt_mode: str
    grace_s: int
    tier: int
    allow_accounts: str
    allow_qos: str


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike: how many, what each has, and their state.

    `gpus` are counts by type, "" where they have none; `shares` are the shares of GPUs that Slurm hands out: of a MIG type,
    `shard` and `mps`.
    """

    partition: str
    count: int
    cpus: int
    memory_mb: int
    gpus: dict[str, int]
    shares: dict[str, int]
    state: str

    @property
    def is_usable(self) -> bool:
        """Whether jobs can run there now or soon."""
        return not self.state.startswith(_UNUSABLE)


@dataclass(frozen=True)
class Site:
    """A cluster; `config` are those lines of `scontrol show config` that a run's life depends on."""

    config: dict[str, str]
    partitions: dict[str, Partition]
    nodes: list[Nodes]

    @property
    def default_partition(self) -> Partition | None:
        """Where jobs go that name none."""
        return next((one for one in self.partitions.values() if one.is_default), None)

    @property
    def requeue_s(self) -> int:
        """As the function of this name."""
        return _requeue_s(self.config)

    @property
    def kill_wait_s(self) -> int:
        """Seconds between SIGTERM and SIGKILL."""
        return _number(self.config.get("KillWait", "")) or 30

    @property
    def max_array_size(self) -> int | None:
        """One more than the greatest index of an array; None if that is not told."""
        return _number(self.config.get("MaxArraySize", ""))

    @property
    def sends_user_signal(self) -> bool:
        """Whether a preempted job gets the signal of `--signal` in place of SIGTERM: said in one place or, in 22.05, another."""
        told = self.config.get("PreemptParameters", "") + "," + self.config.get("SlurmctldParameters", "")
        return "send_user_signal" in told

    @property
    def has_accounting(self) -> bool:
        """Whether there is a database, without which accounts and QOS mean nothing."""
        return "slurmdbd" in self.config.get("AccountingStorageType", "")

    def nodes_of(self, partition: str) -> list[Nodes]:
        """The nodes of a partition."""
        return [one for one in self.nodes if one.partition == partition]

    def as_json(self) -> dict[str, Any]:
        """All facts read."""
        return asdict(self)


def read_site(cluster: str | None = None) -> Site | str:
    """A cluster's facts, or why there is no answer."""
    told = []
    for command in (
        ["scontrol", "show", "config"],
        ["scontrol", "show", "partition", "-o"],
        ["sinfo", "-h", "-e", "-o", "%P|%D|%c|%m|%T|%G"],
    ):
        answer = ask(command, TIMEOUT_S, cluster=cluster)
        if answer.refusal is not None:
            return answer.refusal
        told.append(answer.text)
    config, partitions, nodes = told
    found = [_partition(line) for line in partitions.splitlines() if line.startswith("PartitionName=")]
    rows = [line.split("|", 5) for line in nodes.splitlines() if line.count("|") >= 5]
    return Site(_config(config), {one.name: one for one in found}, [_nodes(row) for row in rows])


def requeue_s(cluster: str | None = None) -> int | None:
    """Seconds for which Slurm starts no requeued job: until its old credential is void, and one more. None without an answer."""
    answer = ask(["scontrol", "show", "config"], SCONTROL_TIMEOUT_S, cluster=cluster)
    return _requeue_s(_config(answer.text)) if answer.refusal is None else None


def _requeue_s(config: dict[str, str]) -> int:
    told = re.search(r"cred_expire=(\d+)", config.get("AuthInfo", ""))
    expire_s = int(told[1]) if told else _DEFAULT_CRED_EXPIRE_S
    return (expire_s if expire_s >= _LEAST_CRED_EXPIRE_S else _DEFAULT_CRED_EXPIRE_S) + 1


def _config(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    told = {name.strip(): value.strip() for name, separator, value in pairs if separator}
    return {name: told[name] for name in _OF_CONFIG if name in told}


def _partition(line: str) -> Partition:
    pairs = (word.partition("=") for word in line.split())
    told = {name: value for name, separator, value in pairs if separator}
    max_time, max_cpus = told.get("MaxTime", ""), told.get("MaxCPUsPerNode", "")
    return Partition(
        told["PartitionName"],
        told.get("Default") == "YES",
        told.get("State", ""),
        None if max_time in _NO_LIMIT else minutes(max_time),
        None if max_cpus in _NO_LIMIT else _number(max_cpus),
        told.get("PreemptMode", ""),
        _number(told.get("GraceTime", "")) or 0,
        _number(told.get("PriorityTier", "")) or 0,
        told.get("AllowAccounts", "ALL"),
        told.get("AllowQos", "ALL"),
    )


def _nodes(row: list[str]) -> Nodes:
    partition, count, cpus, memory, state, gres = row
    gpus, shares = gpus_of(gres)
    return Nodes(
        partition.rstrip("*"), int(count), _number(cpus) or 0, _number(memory) or 0, gpus, shares, state.lower()
    )


def gpus_of(gres: str) -> tuple[dict[str, int], dict[str, int]]:
    """A node's whole GPUs and its shares of GPUs, as sinfo lists them: gpu:a100:4(S:0-1),gpu:1g.10gb:7,shard:16."""
    gpus: dict[str, int] = {}
    shares: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *kind, count = (item.split(":") if ":" in item else [item, "1"]) if item else ["", "0"]
        number = _number(count) or 0
        if name in ("shard", "mps") and number:
            shares[name] = shares.get(name, 0) + number
        elif name == "gpu" and number:
            into = shares if kind and re.search(r"\d+g\.\d+gb", kind[0]) else gpus
            into[kind[0] if kind else ""] = into.get(kind[0] if kind else "", 0) + number
    return gpus, shares


def _number(text: str) -> int | None:
    found = re.match(r"\d+", text.strip())
    return int(found[0]) if found else None
