"""`aae-slurm collect`: what one keeps of a run, with a manifest."""

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

from job.eventlog import merged_records
from job.events import EVENTS
from job.rundir import RunDir
from job.status import now, read_status

FORMAT = 1


def collect_run(run_dir: RunDir, out: Path) -> str:
    """Copy into out/<run>, replacing what an earlier collect put there; returns a line that says what was copied."""
    folder = out / run_dir.path.name
    folder.mkdir(parents=True, exist_ok=True)
    files = [run_dir.settings_file, *sorted(run_dir.lattices.glob("step-*.png")), *sorted(run_dir.final.glob("*"))]
    for source in files:
        target = folder / run_dir.relative(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "metrics.csv").write_text(_metrics(run_dir))
    names = [*(run_dir.relative(path) for path in files), "metrics.csv"]
    status = read_status(run_dir)
    manifest = {
        "format": FORMAT,
        "run": run_dir.path.name,
        "run_dir": str(run_dir.path),
        "collected_at": now(),
        "state": status.state if status else None,
        "step": status.step if status else None,
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    note = (
        ""
        if run_dir.final_weights.exists()
        else "; no weights: the run is not finished, `aae-job sample` reads its checkpoints"
    )
    return f"{run_dir.path.name}: {len(names)} files in {folder}{note}"


def _metrics(run_dir: RunDir) -> str:
    fields = list(EVENTS["step"].model_fields)
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record for record in merged_records(run_dir.events_file) if record["event"] == "step")
    return text.getvalue()
