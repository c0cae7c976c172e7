"""A run as it is kept: what is copied, what is made of it, and what is said about that."""

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from job.config.settings_file import Record, read_record
from job.errors import UsageError
from job.log.course import Course
from job.output import escaped
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir
from job.rundir.small_file import exists, names_in
from job.rundir.status import now, read_status
from slurm.login.clusters import Queues
from slurm.login.keeping.film import make_film
from slurm.login.keeping.folder import MANIFEST, SUMS, Folder
from slurm.login.keeping.segments import Stretch, segments_csv
from slurm.login.keeping.tables import Reading
from slurm.login.states import ENDED, Shown, show

_FILM = ["lattices.gif", "contact-sheet.png"]
_TOLD = ["metrics.csv", "evaluations.csv", "segments.csv", "report.html"]
_RESERVED = {*_FILM, *_TOLD, MANIFEST, SUMS, "settings.json", "lattices", "evaluations"}  # not for files of final/
_LATTICE = r"lattices/step-\d{12}\.png"


@dataclass
class Collected:
    """A run that has been collected: what is said of it, what could not be kept and why, and what its page was made of.

    `course` is what its log tells, None if nothing has changed there since it was read by an earlier collect.
    """

    run_dir: RunDir
    folder: Folder
    words: str
    problems: list[str]
    made_from: str
    course: Course | None


def collect_run(run_dir: RunDir, out: Path, queues: Queues) -> Collected:
    """Keep what there is of a run in out/<run>; raises OSError if nothing can be kept, AaeError where it must not be.

    Links are followed within the run alone: what somebody has linked there from elsewhere is not the run's.
    """
    folder = Folder(out / run_dir.path.name, run_dir.path.name, run_dir.path, _begun_by(run_dir))
    copies = _copies(run_dir, folder.problems)
    if not exists(run_dir.path):
        raise UsageError(f"there is no {run_dir.path}")
    with folder.filling([*copies, *_FILM, *_TOLD]):
        shown = _shown(run_dir, queues)
        for target, name in copies.items():
            _copy(run_dir, folder, name, target)
        _make_film(folder)
        made_from, course, damage = _tell_of(run_dir, folder, shown)
        folder.close(now(), shown.state if shown else None, shown.status.step if shown else None)
    problems = [f"{name} is left out: {why}" for name, why in folder.problems.items()]
    problems += [damage] if damage is not None else []
    return Collected(run_dir, folder, _words(run_dir, folder), problems, made_from, course)


def _begun_by(run_dir: RunDir) -> str | None:
    first = read_segment(run_dir, 1)
    if first is None:
        return None
    owner = first.owner
    return f"process {owner.pid} on {owner.host}, started at {owner.process_start} of boot {owner.boot_id}"


def _shown(run_dir: RunDir, queues: Queues) -> Shown | None:
    """How the run stands, as `status` shows it; of one that has ended no scheduler is asked."""
    status = read_status(run_dir)
    return show(run_dir, queues.of_run(run_dir) if status is not None and status.state not in ENDED else None)


def _words(run_dir: RunDir, folder: Folder) -> str:
    counts = f"{len(folder.written)} written, {len(folder.unchanged)} unchanged"
    counts += f", {len(folder.kept)} kept from before" if folder.kept else ""
    counts += f", {len(folder.problems)} failed" if folder.problems else ""
    lines = [f"{run_dir.path.name}: {counts}"]
    lines += [f"  report   {folder.path / 'report.html'}"] if "report.html" in folder.digests else []
    if not exists(run_dir.final_weights):
        before = ", those here are of an earlier end" if "weights.safetensors" in folder.digests else ""
        there = (
            "`aae-job sample` reads its checkpoints" if run_dir.checkpoint_steps() else "and has no checkpoint either"
        )
        lines.append(f"  weights  none yet{before}; the run is not finished, {there}")
    return "\n".join(lines)


def _copies(run_dir: RunDir, problems: dict[str, str]) -> dict[str, str]:
    """What is to be copied: names in OUT/<run>, and what they are copied from, relative to the run directory.

    Folders that cannot be looked into are added to `problems`.
    """

    def names_of(folder: Path) -> list[str]:
        try:
            return names_in(folder)
        except OSError as error:
            problems[f"{folder.name}/"] = error.strerror or str(error)
            return []

    found = {"settings.json": run_dir.relative(run_dir.settings_file)}
    found |= {"curves.png": run_dir.relative(run_dir.curves)} if exists(run_dir.curves) else {}
    for folder, kind in ((run_dir.lattices, "step-*.png"), (run_dir.evaluations, "step-*.json")):
        names = [f"{folder.name}/{name}" for name in names_of(folder) if fnmatch(name, kind)]
        found |= {escaped(name): name for name in names}
    final = [name for name in names_of(run_dir.final) if fnmatch(name, "[!.]*")]
    return found | {escaped(name): f"{run_dir.final.name}/{name}" for name in final if name not in _RESERVED}


def _copy(run_dir: RunDir, folder: Folder, name: str, target: str) -> None:
    source = Path(os.path.realpath(run_dir.path / name))
    if not source.is_relative_to(os.path.realpath(run_dir.path)):
        folder.problems.setdefault(target, "it is a link that leads out of the run")
        return
    folder.copy(source, target, is_immutable=re.fullmatch(r"\w+/step-\d{12}\.\w+", name) is not None)
    if target in folder.problems and not os.path.lexists(run_dir.path / name):
        del folder.problems[target]  # it has been pruned, or `final/` replaced, since it was looked for


def _make_film(folder: Folder) -> None:
    pictures = lattices_in(folder)
    made_from = _digest(folder.names(_LATTICE))
    if not pictures or folder.is_made_from(made_from, _FILM):
        return
    try:
        film = make_film(pictures)
    except (OSError, ValueError) as error:
        folder.problems |= {name: str(error) for name in _FILM if name not in folder.problems}
        return
    for name, content in zip(_FILM, (film.gif, film.sheet), strict=True):
        folder.make(name, made_from, partial(_write, content))
    if film.left_out is not None:
        print(f"note: lattices.gif of {folder.path.name}: {film.left_out}", file=sys.stderr)


def lattices_in(folder: Folder) -> dict[int, Path]:
    """The lattices that have been collected, by step."""
    return {int(name[-16:-4]): folder.path / name for name in folder.names(_LATTICE)}


def _tell_of(run_dir: RunDir, folder: Folder, shown: Shown | None) -> tuple[str, Course | None, str | None]:
    """Keep what the log tells: tables and page. Returns what these are made of, the course if the log was read, and its damage."""
    found = _stamp(run_dir.events_file)
    told = (shown.status.model_dump_json(), shown.state, shown.note) if shown is not None else None
    pictures = {name: digest for name, digest in folder.names(".*").items() if name not in _TOLD}
    made_from = _digest([found, told, pictures, str(run_dir.path)])
    if folder.is_made_from(made_from, _TOLD):
        return made_from, None, None
    reading = Reading(run_dir.events_file, found[0] if found else 0)
    folder.make("metrics.csv", made_from, reading.write_metrics)
    reading.finish()
    folder.make("evaluations.csv", made_from, reading.write_evaluations)
    newest, goes_on = (shown.status.segment, shown.state == "running") if shown is not None else (0, False)
    segments = reading.segments.all(run_dir, newest, goes_on=goes_on)
    folder.make("segments.csv", made_from, partial(_write, segments_csv(segments)))
    folder.make(
        "report.html", made_from, lambda file: _write(_page(run_dir, folder, shown, reading.course, segments), file)
    )
    damage = reading.damage.words(run_dir.path)
    if damage is not None:
        folder.doubt("metrics.csv")  # so that the next collect tells of it too
    return made_from, reading.course, damage


def _page(run_dir: RunDir, folder: Folder, shown: Shown | None, course: Course, segments: list[Stretch]) -> bytes:
    from slurm.login.report.run_page import Run, run_page

    return run_page(
        Run(run_dir.path.name, folder.path, shown, _record(run_dir), course, segments, lattices_in(folder), now())
    )


def _record(run_dir: RunDir) -> Record | None:
    try:
        return read_record(run_dir)
    except (OSError, UsageError):
        return None


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _stamp(path: Path) -> list[int]:
    """What of a log changes whenever it does: size, time and file number; [] if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _digest(what: Any) -> str:
    """Of all that something is made from, the code that makes it included."""
    from slurm.login.report.page import made_by

    return hashlib.sha256(json.dumps([what, made_by()]).encode()).hexdigest()
