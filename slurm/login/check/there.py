"""What the cluster says of the request: whether it fits, whether Slurm takes it, and what its rules mean for a run."""

from datetime import datetime

from job.commandline import duration
from job.config.allocation import Allocation, megabytes
from slurm.findings import Line
from slurm.scheduler.ask import ask
from slurm.scheduler.errors import meaning_of
from slurm.scheduler.site import Nodes, Partition, Site

_SBATCH_TIMEOUT_S = 30.0
_SAVE_S = 5  # a step and a save, with room


def look_there(site: Site | str, allocation: Allocation, script: str) -> list[Line]:
    """All of it; `site` may be why the scheduler gives no answer."""
    names = ("partition", "time_limit", "node", "gpus", "gpu_shares", "accepted", "preemption", "requeue")
    if isinstance(site, str):
        reason = "the scheduler gives no answer"
        away = Line("scheduler", "error", site, "sinfo")
        return [away, *(Line(name, "skipped", reason) for name in names)]
    version = site.config.get("SLURM_VERSION", "of unknown version")
    lines = [Line("scheduler", "ok", f"Slurm {version}, cluster {site.config.get('ClusterName', 'without a name')}")]
    partition = site.partitions.get(allocation.partition) if allocation.partition else site.default_partition
    if partition is None:
        lines.append(_no_partition(site, allocation))
        lines += [Line(name, "skipped", "there is no partition to compare with") for name in names[1:5]]
    else:
        lines += [_partition(partition, site), _time_limit(partition, allocation)]
        nodes = site.nodes_of(partition.name)
        lines += [
            _node(partition, nodes, allocation),
            _gpus(site, partition, nodes, allocation),
            _shares(nodes, allocation),
        ]
    lines.append(_accepted(allocation, script))
    if partition is not None:
        lines.append(_preemption(site, partition, allocation))
    return [*lines, _requeue(site)]


def _no_partition(site: Site, allocation: Allocation) -> Line:
    names = ", ".join(site.partitions)
    if allocation.partition:
        text = f"there is no partition {allocation.partition}; there are {names}"
    else:
        text = f"none is named, and the cluster has no default; there are {names}"
    return Line("partition", "error", text, f"AAE_SLURM_PARTITION={next(iter(site.partitions), '...')}")


def _partition(partition: Partition, site: Site) -> Line:
    which = f"{partition.name}{', the default' if partition.is_default else ''}"
    if partition.state != "UP":
        text = f"{which}, is {partition.state}: nothing starts there until an administrator changes that"
        return Line("partition", "warning", text, f"sinfo -p {partition.name}")
    nodes = site.nodes_of(partition.name)
    usable = sum(one.count for one in nodes if one.is_usable)
    text = f"{which}, {usable} of {sum(one.count for one in nodes)} nodes can take jobs"
    return Line("partition", "ok" if usable else "warning", text, None if usable else f"sinfo -p {partition.name} -R")


def _time_limit(partition: Partition, allocation: Allocation) -> Line:
    if partition.max_time_min is None:
        return Line("time_limit", "ok", f"{allocation.time}; {partition.name} has no limit")
    most = _as_sbatch(partition.max_time_min)
    if allocation.time_min > partition.max_time_min:
        text = f"{allocation.time} is more than {partition.name} allows, {most}: the job would wait for ever"
        return Line("time_limit", "error", text, f"AAE_SLURM_TIME={most}")
    return Line("time_limit", "ok", f"{allocation.time} of at most {most}; a run goes on over as many as it needs")


def _as_sbatch(num_minutes: int) -> str:
    days, rest = divmod(num_minutes, 24 * 60)
    return f"{f'{days}-' if days else ''}{rest // 60:02d}:{rest % 60:02d}:00"


def _node(partition: Partition, nodes: list[Nodes], allocation: Allocation) -> Line:
    cpus, memory = allocation.cpus_per_task, _memory_mb(allocation)
    asked = " and ".join(
        filter(
            None, [f"{cpus} CPU{'s' * (cpus > 1)}" if cpus else None, f"{memory:,} MiB of memory" if memory else None]
        )
    )
    if not asked:
        return Line("node", "skipped", "neither CPUs nor memory are asked for: the site's rule gives them")
    if not nodes:
        return Line("node", "skipped", f"sinfo lists no node of {partition.name}")
    if cpus and partition.max_cpus is not None and cpus > partition.max_cpus:
        text = f"{cpus} CPUs; {partition.name} allows {partition.max_cpus} of a node"
        return Line("node", "error", text, f"AAE_SLURM_CPUS_PER_TASK={partition.max_cpus}")
    fitting = sum(one.count for one in nodes if one.cpus >= (cpus or 0) and one.memory_mb >= (memory or 0))
    if fitting:
        return Line("node", "ok", f"{asked}: {fitting} of {sum(one.count for one in nodes)} nodes have that")
    largest = max(nodes, key=lambda one: (one.cpus >= (cpus or 0), one.memory_mb, one.cpus))
    text = (
        f"{asked}: no node of {partition.name} has that, the largest {largest.cpus} CPUs and {largest.memory_mb:,} MiB"
    )
    helps = [
        f"AAE_SLURM_CPUS_PER_TASK={largest.cpus}" if (cpus or 0) > largest.cpus else None,
        f"AAE_SLURM_MEM={largest.memory_mb}M" if (memory or 0) > largest.memory_mb else None,
    ]
    return Line("node", "error", text, " ".join(filter(None, helps)))


def _memory_mb(allocation: Allocation) -> int | None:
    try:
        return megabytes(allocation.mem) if allocation.mem is not None else None
    except ValueError:
        return None  # sbatch says what it thinks of it


def wanted_gpus(allocation: Allocation) -> dict[str, int]:
    """How many GPUs of which type are asked for, "" for any."""
    pairs = (item.rpartition(":") for item in allocation.gpus.split(","))
    return {kind: int(count) for kind, _, count in pairs if int(count)}


def _gpus(site: Site, partition: Partition, nodes: list[Nodes], allocation: Allocation) -> Line:
    wanted = wanted_gpus(allocation)
    if not wanted:
        return Line("gpus", "ok", "none is asked for")
    if any(_has(one, wanted) for one in nodes):
        there = sum(one.count for one in nodes if _has(one, wanted))
        return Line("gpus", "ok", f"{allocation.gpus}: {there} of {sum(one.count for one in nodes)} nodes have that")
    kinds = sorted(
        {f"{kind}:{n}" if kind else str(n) for one in nodes for kind, n in {**one.gpus, **one.shares}.items()}
    )
    elsewhere = sorted({one.partition for one in site.nodes if _has(one, wanted)})
    if kinds:
        text = f"{allocation.gpus}: no node of {partition.name} has that; a node has {', '.join(kinds)}"
        return Line("gpus", "error", text, f"AAE_SLURM_GPUS={_one_of(kinds[0])}")
    if elsewhere:
        text = f"{allocation.gpus}: {partition.name} has no GPUs; {', '.join(elsewhere)} has"
        return Line("gpus", "error", text, f"AAE_SLURM_PARTITION={elsewhere[0]}")
    text = f"{allocation.gpus}: no node of this cluster has that"
    return Line("gpus", "error", text, "AAE_SLURM_GPUS=0 AAE_DEVICE=cpu")


def _one_of(kind: str) -> str:
    name, separator, _ = kind.rpartition(":")
    return f"{name}{separator}1"


def _has(nodes: Nodes, wanted: dict[str, int]) -> bool:
    offered = {**nodes.gpus, **{kind: n for kind, n in nodes.shares.items() if kind not in ("shard", "mps")}}
    of_any = sum(offered.values())
    return all((offered.get(kind, 0) if kind else of_any) >= count for kind, count in wanted.items())


def _shares(nodes: list[Nodes], allocation: Allocation) -> Line:
    offered = sorted({kind for one in nodes for kind in one.shares})
    wanted = wanted_gpus(allocation)
    if not wanted or not offered:
        why = "no GPU is asked for" if not wanted else "this partition has none (MIG, shard, mps)"
        return Line("gpu_shares", "ok", why)
    if set(wanted) <= set(offered):
        return Line("gpu_shares", "ok", f"{allocation.gpus} is a share of a GPU")
    text = f"one run leaves a GPU mostly idle, and there are shares: {', '.join(offered)}"
    helps = f"AAE_SLURM_GPUS={offered[0]}:1"
    if offered[0] in ("shard", "mps"):
        helps = f'AAE_SLURM_GPUS=0 AAE_SLURM_EXTRA=\'{{"gres": "{offered[0]}:1"}}\''
    return Line("gpu_shares", "warning", text, helps)


def _accepted(allocation: Allocation, script: str) -> Line:
    """What `sbatch --test-only` says of the very script that submit would send."""
    command = ["sbatch", "--test-only"]
    answer = ask(command, _SBATCH_TIMEOUT_S, script, allocation.cluster, also_stderr=True)
    if answer.is_away:
        return Line("accepted", "skipped", f"sbatch --test-only: {answer.refusal}")
    words = " ".join((answer.refusal or answer.text).split())
    if answer.refusal is not None:
        unknown = "AAE_SLURM_ACCOUNT=... AAE_SLURM_PARTITION=... AAE_SLURM_QOS=..., as the site tells"
        return Line("accepted", "error", f"sbatch would refuse it: {words}", meaning_of(words) or unknown)
    _, _, when = words.partition(" to start at ")
    at = when.split(" ", 1)[0]
    try:
        told = datetime.fromtimestamp(float(at)) if at.isdigit() else datetime.fromisoformat(at)
    except ValueError:
        return Line("accepted", "ok", f"sbatch would take it: {words}")
    wait_s = (told - datetime.now()).total_seconds()
    waits = f"in about {duration(wait_s)}" if wait_s > 5 else "at once"
    return Line(
        "accepted", "ok", f"sbatch would take it; it would start {waits} ({told:%a %d %b %H:%M}), by Slurm's guess"
    )


def _preemption(site: Site, partition: Partition, allocation: Allocation) -> Line:
    kind, mode = site.config.get("PreemptType", ""), partition.preempt_mode or site.config.get("PreemptMode", "")
    if kind in ("", "preempt/none") or site.config.get("PreemptMode", "OFF") == "OFF":
        return Line("preemption", "ok", "nothing is preempted on this cluster")
    if kind == "preempt/qos":
        text = (
            f"by QOS (by default {mode}), whose own modes only accounting tells: `sacctmgr show qos "
            "format=name,preempt,preemptmode,gracetime`. By REQUEUE and by CANCEL a run saves, is requeued, and goes on"
        )
        return Line("preemption", "ok", text)
    above = [one.name for one in site.partitions.values() if one.tier > partition.tier]
    if mode == "OFF" or not above:
        why = "is not preempted" if mode == "OFF" else "has no partition above it"
        return Line("preemption", "ok", f"{partition.name} {why}")
    return _preempted(site, partition, mode, " and ".join(above))


def _preempted(site: Site, partition: Partition, mode: str, above: str) -> Line:
    sent = "SIGUSR2" if site.sends_user_signal else "SIGTERM"
    by = f"jobs of {above} preempt those of {partition.name}"
    if "SUSPEND" in mode or "GANG" in mode:
        return Line("preemption", "ok", f"{by} by suspending them: a run stands still meanwhile and loses nothing")
    grace = f"a grace time of {partition.grace_s} s ({sent})" if partition.grace_s else "no grace time"
    room_s = partition.grace_s + site.kill_wait_s
    if room_s < _SAVE_S:
        text = (
            f"{by} with {room_s} s until SIGKILL: too short for a save, so each may cost up to AAE_CHECKPOINT_EVERY_S"
        )
        if mode != "REQUEUE":
            text += ", and Slurm cancels what it kills: the run then waits for your next submit"
        return Line("preemption", "warning", text, "AAE_CHECKPOINT_EVERY_S=20")
    how = "Slurm requeues it" if mode == "REQUEUE" else "it has itself requeued, since Slurm would cancel it"
    return Line("preemption", "ok", f"{by} with {grace}: a run saves, {how}, and goes on from the same step")


def _requeue(site: Site) -> Line:
    text = f"a requeued job starts again after {duration(site.requeue_s)} at the earliest (cred_expire)"
    if site.config.get("JobRequeue") == "0":
        text += "; JobRequeue=0 is overruled by the script's --requeue"
    return Line("requeue", "ok", text)
