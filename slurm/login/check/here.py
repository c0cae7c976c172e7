"""What can be seen on the login node: the run, its folders, its room, its data set, and the shell's own wishes."""

import os
import re
import sys
from pathlib import Path

from job.config.sources import Configuration
from job.data.datasets import check_dataset
from job.errors import UsageError
from job.output import size
from job.segment.footprint import Footprint, too_much
from job.segment.plan import plan_start
from slurm.findings import Line
from slurm.login.batch_script import ignored_options

ON_NODE = "the same command with --on-node"
# By the names that the kernel has for them.
_SHARED = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "cifs",
    "smb",
    "afs",
    "gfs2",
    "ocfs2",
    "panfs",
    "wekafs",
    "9p",
    "pvfs2",
)
_SHARED_FUSE = ("glusterfs", "sshfs", "ceph", "juicefs", "moosefs", "mfs", "lizardfs", "beegfs", "dfuse", "weka")
_OF_ONE_MACHINE = ("ext", "xfs", "btrfs", "tmpfs", "ramfs", "overlay", "zfs", "f2fs", "bcachefs", "devtmpfs", "vfat")


def look_here(configuration: Configuration, footprint: Footprint) -> list[Line]:
    """All of it; writes nothing."""
    settings = configuration.settings
    lines = [_run(configuration), *_runs_dir(settings.runs_dir), *_room(settings.runs_dir, footprint)]
    lines += [Line("cadence", "warning", message) for _, message in too_much(settings, footprint)]
    return [*lines, _data_set(configuration), *_package(), *_shell()]


def _run(configuration: Configuration) -> Line:
    try:
        plan = plan_start(configuration, needs_data=False)
    except UsageError as error:
        return Line("run", "error", str(error))
    except OSError as error:
        return Line("run", "error", f"{configuration.settings.run_dir} cannot be read: {error}")
    name = plan.run_dir.path.name
    if plan.is_finished:
        return Line("run", "ok", f"{name} is finished: submit sends nothing", f"aae-slurm status {name}")
    return Line("run", "ok", f"{name} {'is new' if plan.is_new else 'goes on'}, {plan.settings.total_steps:,} steps")


def _existing(path: Path) -> Path:
    """The nearest folder above that there is, or itself."""
    return next(one for one in (path, *path.parents) if one.exists())


def _runs_dir(runs_dir: Path) -> list[Line]:
    folder = _existing(runs_dir)
    kind = filesystem_of(folder)
    lines = [_shared("runs_dir", runs_dir, kind)]
    if not folder.is_dir():
        lines.append(Line("writable", "error", f"{folder} is no folder", "AAE_RUNS_DIR=..."))
    elif os.statvfs(folder).f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        lines.append(Line("writable", "error", f"{folder} cannot be written from here", "AAE_RUNS_DIR=..."))
    else:
        made = "" if folder == runs_dir else f"; {runs_dir} is made at submit"
        lines.append(Line("writable", "ok", f"{folder} can be written from here{made}"))
    return lines


def _shared(name: str, path: Path, kind: str) -> Line:
    if kind.startswith(_SHARED) or kind.removeprefix("fuse.").startswith(_SHARED_FUSE):
        return Line(name, "ok", f"{path} lies on {kind}, which nodes can share")
    why = "which is mostly of one machine" if kind.startswith(_OF_ONE_MACHINE) else "of which nothing is known here"
    return Line(
        name,
        "warning",
        f"{path} lies on {kind or 'a filesystem'}, {why}: the nodes have to see the same files",
        ON_NODE,
    )


def filesystem_of(path: Path) -> str:
    """The type of the filesystem that a path lies on, as the kernel names it; "" if that cannot be told."""
    real, found, length = os.path.realpath(path), "", -1
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
    for line in mounts.splitlines():
        fields, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields.split()[4])  # \040 is a blank
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= length:
            found, length = after.split()[0], len(point)
    return found


def _room(runs_dir: Path, footprint: Footprint) -> list[Line]:
    try:
        disk = os.statvfs(_existing(runs_dir))
    except OSError as error:
        return [Line("room", "skipped", f"the filesystem does not tell its room: {error}")]
    free, needed = disk.f_bavail * disk.f_frsize, footprint.peak_bytes
    files = f"{footprint.num_files:,} files"
    told = f"needs {size(needed)} and {files}; {size(free)} are free (a quota may leave you less)"
    if free < needed:
        return [Line("room", "error", told, "AAE_RUNS_DIR=... on a larger filesystem")]
    if disk.f_files and disk.f_favail < footprint.num_files:
        told = f"needs {files}, but the filesystem has room for {disk.f_favail:,} more"
        return [Line("room", "error", told, "AAE_LATTICE_EVERY_STEPS=... for fewer lattices")]
    return [Line("room", "warning" if free < 2 * needed else "ok", told)]


def _data_set(configuration: Configuration) -> Line:
    settings = configuration.settings
    try:
        check_dataset(settings.dataset, settings.data_dir, every_byte=True)
    except UsageError as error:
        return Line("data_set", "error", str(error), f"aae-job fetch --dataset {settings.dataset}")
    where = "part of the package" if settings.dataset == "digits" else f"whole in {settings.data_dir}"
    return Line("data_set", "ok", f"{settings.dataset} is {where}")


def _package() -> list[Line]:
    prefix = Path(sys.prefix)
    line = _shared("python", prefix, filesystem_of(prefix))
    return [line]


def _shell() -> list[Line]:
    return [Line("shell", "warning", line) for line in ignored_options()]
