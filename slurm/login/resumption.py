"""The one command that goes on with a run as it was started, whatever the shell that it is typed in has set."""

import os
import shlex
from pathlib import Path
from typing import Any

from job.config.allocation import Allocation
from job.config.recipes import RECIPES
from job.config.settings import Settings
from job.config.settings_file import Record, recorded_settings
from job.config.sources import SECTIONS, flag, spelt, variable
from job.errors import AaeError
from job.rundir.claim import newest_claim, read_segment
from job.rundir.directory import RunDir
from job.rundir.small_file import exists
from slurm.login.unbegun import newest_job_id

# What a first start fills in, and keeps: named only where a person has set it.
_FILLED_IN = ("num_threads", "evaluate_every_steps")


def command_to_go_on(run_dir: RunDir, record: Record, job_id: str | None) -> str | None:
    """By hand, by submit or with the user's own batch script, as it was started last; None where its settings are of another
    version. Raises OSError.
    """
    if job_id is None and newest_job_id(run_dir) is None and newest_claim(run_dir) > 0:
        return _typed(["aae-job"], run_dir, record, "")
    if job_id is not None and job_id.startswith("local-"):
        return _typed(["aae-slurm", "submit", "--local"], run_dir, record, *SECTIONS)
    script = _script_of_the_user(run_dir, job_id)
    if script is not None:
        task = (job_id or "").partition("_")[2]
        return shlex.join(["sbatch", *([f"--array={task}"] if task else []), script])
    return _typed(["aae-slurm", "submit"], run_dir, record, *SECTIONS)


def _script_of_the_user(run_dir: RunDir, job_id: str | None) -> str | None:
    """The batch script of one's own that trained the run last, if it is still there; None if it was submitted."""
    segment = read_segment(run_dir, newest_claim(run_dir))
    script = segment.owner.job_script if segment is not None and segment.owner.job_id == job_id else None
    if script is None or Path(script).parent.name == "slurm" or not exists(Path(script)):
        return None
    return script


def _typed(words: list[str], run_dir: RunDir, record: Record, *sections: str) -> str | None:
    try:
        settings = recorded_settings(record, run_dir)
    except AaeError:
        return None
    values = _of_the_run(settings, run_dir, record)
    if len(sections) > 1:
        defaults = Allocation().model_dump(mode="json")
        asked = {name: value for name, value in record.slurm.items() if name in defaults}
        values |= {f"slurm_{n}": v for n, v in asked.items() if v != defaults[n] or _is_set(f"slurm_{n}")}
    return shlex.join([*words, *(word for name, value in values.items() for word in (flag(name), spelt(value)))])


def _of_the_run(settings: Settings, run_dir: RunDir, record: Record) -> dict[str, Any]:
    """The settings that a shell has to be told: those that differ from its recipe, or that it has set itself."""
    values = settings.model_dump(mode="json")
    expected = Settings().model_dump(mode="json") | RECIPES.get(settings.recipe, {}) | {"recipe": "lecture"}
    told = {name: value for name, value in values.items() if value != expected[name] or _is_set(name)}
    for name in _FILLED_IN:
        if record.sources.get(name, "default") == "default" and not _is_set(name):
            told.pop(name, None)
    if settings.dataset == "digits" and not _is_set("data_dir"):
        told.pop("data_dir", None)
    told["runs_dir"] = str(run_dir.path.parent)  # always: what a cron job has mailed is typed elsewhere
    told.pop("run_name", None)
    if settings.model_copy(update={"run_name": None}).name != run_dir.path.name or _is_set("run_name"):
        told = {"run_name": run_dir.path.name, **told}
    return told


def _is_set(name: str) -> bool:
    return bool(os.environ.get(variable(name)))
