"""`aae-slurm collect`: what one keeps of a run, with a manifest."""

import csv
import errno
import hashlib
import json
import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

from job.commandline import Parser
from job.log.events import EVALUATION_KEYS, EVENTS
from job.log.reader import Damage, merged_records
from job.rundir.directory import RunDir
from job.rundir.find import find_runs
from job.rundir.small_file import exists, names_in
from job.rundir.status import now, read_status

FORMAT = 1


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm collect",
        "Copies what one keeps of each run into OUT/<run>/, with the SHA-256 of every file in OUT/<run>/manifest.json.\n"
        "Exit code 0: all of it; 1: something could not be copied, which is told; 2: no such run.",
        "aae-slurm collect digits-2d-seed0-44136fa3 results",
    )
    parser.add_argument(
        "runs", nargs="+", type=find_runs, metavar="RUN", help="paths or names of runs, or names of sweeps"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to copy to; made if it is not there")
    options = parser.parse_args(arguments)
    missed = False
    run_dirs = {run_dir.path: run_dir for found in options.runs for run_dir in found.runs}
    for run_dir in run_dirs.values():
        line, problems = collect_run(run_dir, options.out)
        print(line)
        for problem in problems:
            print(f"aae-slurm: {run_dir.path.name}: {problem}", file=sys.stderr)
        missed |= bool(problems)
    return 1 if missed else 0


def collect_run(run_dir: RunDir, out: Path) -> tuple[str, list[str]]:
    """Copy into out/<run>, replacing what an earlier collect put there; returns what was copied, and what could not be.

    Links are followed within the run alone: what somebody has linked there from elsewhere is not the run's.
    """
    folder = out / run_dir.path.name
    folder.mkdir(parents=True, exist_ok=True)
    damage = Damage()
    tables = {
        "metrics.csv": ("step", tuple(EVENTS["step"].model_fields)),
        "evaluations.csv": ("evaluation", EVALUATION_KEYS),
    }
    digests: dict[str, str] = {}
    problems: list[str] = []
    for name in [*_names(run_dir), *tables]:
        target = folder / name
        try:
            if name in tables:
                _write_table(run_dir, *tables[name], target, damage)
            else:
                _copy(run_dir, name, target)
            digests[name] = _sha256(target)
        except OSError as error:
            problems.append(f"{name} is left out: {error.strerror or error}")
    problems += [words] if (words := damage.words(run_dir.path)) is not None else []
    status = read_status(run_dir)
    manifest = {
        "format": FORMAT,
        "run": run_dir.path.name,
        "run_dir": str(run_dir.path),
        "collected_at": now(),
        "state": status.state if status else None,
        "step": status.step if status else None,
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    note = (
        ""
        if exists(run_dir.final_weights)
        else "; no weights: the run is not finished, `aae-job sample` reads its checkpoints"
    )
    return f"{run_dir.path.name}: {len(digests)} files in {folder}{note}", problems


def _names(run_dir: RunDir) -> list[str]:
    """What is to be copied, relative to the run directory."""
    found = [run_dir.relative(run_dir.settings_file)]
    found += [run_dir.relative(run_dir.curves)] if exists(run_dir.curves) else []
    kinds = ((run_dir.lattices, "step-*.png"), (run_dir.evaluations, "step-*.json"), (run_dir.final, "[!.]*"))
    return found + [
        f"{folder.name}/{name}" for folder, kind in kinds for name in names_in(folder) if fnmatch(name, kind)
    ]


def _copy(run_dir: RunDir, name: str, target: Path) -> None:
    source = Path(os.path.realpath(run_dir.path / name))
    if not source.is_relative_to(os.path.realpath(run_dir.path)):
        raise OSError(errno.EXDEV, "it is a link that leads out of the run")
    if exists(source) and not source.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    target.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError:
        target.unlink(missing_ok=True)  # half a file is worse than none
        raise


def _write_table(run_dir: RunDir, event: str, fields: tuple[str, ...], path: Path, damage: Damage) -> None:
    """The records of an event that count, a row each; lists as JSON."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows(
            [json.dumps(value) if isinstance(value := record.get(name), list) else value for name in fields]
            for record in merged_records(run_dir.events_file, event, damage)
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
