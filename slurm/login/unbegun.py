"""Jobs that died before our code began: in their setup, at their launch, or without an interpreter."""

import os
from pathlib import Path

from job.rundir.claim import Cause, newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.sweep import Sweeps, printed_by

_LINES, _BYTES = 3, 4096
# Ends after which the job was to be started again.
_COMES_BACK: frozenset[Cause] = frozenset(
    {"time_limit", "preemption", "requeue", "killed", "hung", "no_gpu", "storage", "out_of_memory", "exception"}
)


def newest_job_id(run_dir: RunDir) -> str | None:
    """The job that was submitted last for a run, from the names of submitit's files and its sweeps' records; None if none was."""
    names = (path.name.removesuffix("_submission.sh") for path in run_dir.slurm.glob("*_submission.sh"))
    ids = [job_id for job_id in names if job_id.isdigit()]
    in_sweep = Sweeps(run_dir.path.parent).last_job(run_dir.path.name)
    ids += [in_sweep] if in_sweep is not None else []
    return max(ids, key=lambda job_id: int(job_id.partition("_")[0]), default=None)


def death_before_beginning(run_dir: RunDir, job_id: str | None) -> str | None:
    """What is known of an ended job that never got to the run, or not again; None if it did all that it was to do."""
    if job_id is None:
        return None
    segment = read_segment(run_dir, newest_claim(run_dir))
    if segment is None or job_id not in (segment.owner.job_id, segment.owner.job_number):
        what = f"job {job_id} ended before the run began: in its setup, at its launch, or without an interpreter"
    elif segment.cause in _COMES_BACK:
        what = f"job {job_id} was to start again, but has ended before the run went on"
    else:
        return None
    printed = printed_by(run_dir, job_id)
    lines = _last_lines(printed)
    return f"{what}; {printed} ends with: {lines}" if lines else f"{what}; it printed nothing to {printed}"


def script_of(run_dir: RunDir, job_id: str) -> str | None:
    """The batch script that a job was submitted with; None if it is gone."""
    try:
        return (run_dir.slurm / f"{job_id}_submission.sh").read_text()
    except OSError:
        return None


def _last_lines(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LINES:])
