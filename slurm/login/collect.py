"""`aae-slurm collect`: what one keeps of a run, with a manifest."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

from job.commandline import Parser
from job.log.events import EVALUATION_KEYS, EVENTS
from job.log.reader import Damage, merged_records
from job.rundir.directory import RunDir
from job.rundir.find import find_run
from job.rundir.status import now, read_status

FORMAT = 1


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm collect",
        "Copies what one keeps of each run into OUT/<run>/, with the SHA-256 of every file in OUT/<run>/manifest.json.",
        "aae-slurm collect digits-2d-seed0-44136fa3 results",
    )
    parser.add_argument("runs", nargs="+", type=find_run, metavar="RUN", help="paths or names under AAE_RUNS_DIR")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to copy to; made if it is not there")
    options = parser.parse_args(arguments)
    for run_dir in options.runs:
        print(collect_run(run_dir, options.out))
    return 0


def collect_run(run_dir: RunDir, out: Path) -> str:
    """Copy into out/<run>, replacing what an earlier collect put there; returns a line that says what was copied."""
    folder = out / run_dir.path.name
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        run_dir.settings_file,
        *run_dir.path.glob("curves.png"),
        *sorted(run_dir.lattices.glob("step-*.png")),
        *sorted(run_dir.evaluations.glob("step-*.json")),
        *sorted(run_dir.final.glob("*")),
    ]
    for source in files:
        target = folder / run_dir.relative(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    damage = Damage()
    tables = {
        "metrics.csv": ("step", tuple(EVENTS["step"].model_fields)),
        "evaluations.csv": ("evaluation", EVALUATION_KEYS),
    }
    for name, (event, fields) in tables.items():
        _write_table(run_dir, event, fields, folder / name, damage)
    names = [*(run_dir.relative(path) for path in files), *tables]
    status = read_status(run_dir)
    manifest = {
        "format": FORMAT,
        "run": run_dir.path.name,
        "run_dir": str(run_dir.path),
        "collected_at": now(),
        "state": status.state if status else None,
        "step": status.step if status else None,
        "files": {name: _sha256(folder / name) for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    note = (
        ""
        if run_dir.final_weights.exists()
        else "; no weights: the run is not finished, `aae-job sample` reads its checkpoints"
    )
    left_out = damage.words(run_dir.path)
    return f"{run_dir.path.name}: {len(names)} files in {folder}{note}{'; ' + left_out if left_out else ''}"


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
