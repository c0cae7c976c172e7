"""What this process may use and has used, and the versions it runs on; loads none of them."""

import hashlib
import math
import os
import platform
import resource
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def allotted_cpus(environment: Mapping[str, str] = os.environ) -> int:
    """CPUs allotted to this process: the least of what Slurm gives, the affinity and the cgroup's quota; at least 1."""
    limits = [float(len(os.sched_getaffinity(0)))]
    slurm = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE")
    if slurm and slurm.isdigit():
        limits.append(float(slurm))
    limits += _cgroup_quotas()
    return max(1, math.floor(min(limits)))


def _cgroup_quotas() -> list[float]:
    """The CPU quotas of this process's cgroup and those above it, in CPUs (cgroup v2 and v1); [] without a limit."""
    quotas = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        folder = root / group.lstrip("/")
        for level in [folder, *folder.parents]:
            if not level.is_relative_to(root):
                break
            quota, _, period = _text(level / "cpu.max").partition(" ")
            if controllers:
                quota, period = _text(level / "cpu.cfs_quota_us"), _text(level / "cpu.cfs_period_us")
            if quota.isdigit() and period.isdigit() and int(period) > 0:
                quotas.append(int(quota) / int(period))
    return quotas


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def peak_memory_bytes() -> int:
    """The most main memory that this process has held at once, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


@cache
def versions() -> dict[str, str]:
    """Versions that may matter for exactness, without loading any of them.

    Those that this process began with: they may be replaced while it trains.
    """
    return {"aae-job": version("aae-job"), "python": platform.python_version(), "torch": version("torch")}


@cache
def source_digest() -> str:
    """SHA-256 over the source of this project's packages, as it is installed; that which this process began with."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in ("aae", "job", "slurm"):
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def cpu_model() -> str:
    """The processor's model as the kernel names it, else its architecture."""
    names = (
        line.partition(":")[2] for line in _text(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name")
    )
    return next(names, platform.machine()).strip()
