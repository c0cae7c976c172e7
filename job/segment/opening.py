"""What a segment has to tell when it begins: from where it goes on, and what is not as it was or should be."""

from collections.abc import Callable
from typing import Any

from job.config.settings import Settings
from job.config.settings_file import Record
from job.errors import CheckpointError
from job.log.writer import EventLog
from job.machine import allotted_cpus, versions
from job.rundir.directory import RunDir
from job.rundir.lease import Lease
from job.rundir.status import DAMAGED
from job.segment.resume import Past, changed_settings, inexactness

Warned = list[tuple[str, str]]  # reason, message


def write_start(
    log: EventLog,
    tell: Callable[[str], None],
    lease: Lease,
    settings: Settings,
    device: str,
    step: int,
    past: Past,
    state: dict[str, Any] | None,
) -> None:
    """Write `started` or `resumed`; `state` is what is gone on from, None for none."""
    total_steps, num_threads = settings.total_steps, settings.num_threads
    threads = f"{num_threads} thread{'s' * (num_threads != 1)}"
    start = {
        "total_steps": total_steps,
        "device": device,
        "num_threads": num_threads,
        **lease.claim.segment.owner.told(),
    }
    start["versions"] = versions()
    if lease.claim.number == 1:
        log.write("started", step=0, **start)
        tell(f"starting on {device}, {threads}, {total_steps:,} steps")
        return
    changed = changed_settings(state, settings) if state else {}
    log.write("resumed", step=step, **start, from_step=step, **past.told(), changed=changed)
    lost = f"; {past.steps_lost:,} steps ({past.seconds_lost:.0f} s) are done again" if past.steps_lost else ""
    tell(
        f"resuming on {device}, {threads}, at step {step:,} of {total_steps:,}; the last segment {past.previous}{lost}"
    )


def of_disk(run_dir: RunDir, lease: Lease, past: Past, bad: list[CheckpointError]) -> Warned:
    """What the disk has lost, or cannot do."""
    told = []
    if lease.before is not None and lease.before.reason == DAMAGED:
        told.append((DAMAGED, f"{lease.before.verdict}; it was not needed"))
    if past.damage is not None:
        told.append(("damaged_log", past.damage))
    if run_dir.cannot_sync:
        message = (
            "this filesystem cannot sync folders (as some FUSE, CIFS and Ceph mounts): a power cut may cost more than "
            "the last checkpoint interval there; all else is as anywhere"
        )
        told.append(("no_folder_sync", message))
    return told + [("bad_checkpoint", str(error)) for error in bad]


def of_machine(settings: Settings) -> Warned:
    """More threads than CPUs, as after a move: they wait for each other. Their number is kept, since another gives other sums."""
    threads, cpus = settings.num_threads or 0, allotted_cpus()
    if threads <= cpus:
        return []
    message = (
        f"{threads} threads on {cpus} CPU{'s' * (cpus > 1)} are slower than {cpus}: give the run {threads} CPUs "
        f"(AAE_SLURM_CPUS_PER_TASK), or set AAE_NUM_THREADS={cpus}, with which it goes on, but not bit for bit"
    )
    return [("few_cpus", message)]


def of_changes(
    lease: Lease,
    record: Record,
    settings: Settings,
    state: dict[str, Any] | None,
    device: str,
    hardware: str,
    digest: str,
    *,
    cuda_graph: bool,
) -> Warned:
    """What makes the bytes of what follows no promise; `device` is its type, `digest` that of the installed code."""
    if state is not None and lease.claim.number > 1:
        return inexactness(state, settings, device, hardware, cuda_graph=cuda_graph)
    if record.source_digest not in (None, digest):
        return [("source_changed", "the installed code is not that with which the run was submitted")]
    return []
