"""settings.json: what a run is, written down once; and what a later start may change about it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from job.errors import UsageError
from job.machine import versions
from job.rundir import RunDir
from job.settings import TOTAL, Settings
from job.sources import Configuration, variable
from job.status import read_status

FORMAT = 1


class Record(BaseModel):
    """The content of settings.json; `settings` holds every field, so that nothing is ever filled from an environment."""

    model_config = ConfigDict(frozen=True)

    format: int
    settings: dict[str, Any]
    sources: dict[str, str]
    slurm: dict[str, Any]
    versions: dict[str, str]
    source_revision: str | None

    @classmethod
    def of(cls, configuration: Configuration) -> "Record":
        """The record of a new run."""
        settings = configuration.settings
        return cls(
            format=FORMAT,
            settings=settings.model_copy(update={"run_name": settings.name}).model_dump(mode="json"),
            sources=configuration.sources,
            slurm=configuration.allocation.model_dump(mode="json"),
            versions=versions(),
            source_revision=source_revision(),
        )

    def write(self, run_dir: RunDir) -> None:
        """Replace settings.json."""
        run_dir.replace(run_dir.settings_file, (json.dumps(self.model_dump(), indent=1) + "\n").encode())


class Plan(BaseModel):
    """What a start is going to do, found out before anything is written.

    `is_changed` tells that settings.json has to be written anew.
    """

    model_config = ConfigDict(frozen=True)

    record: Record
    settings: Settings
    is_changed: bool
    is_finished: bool


def read_record(run_dir: RunDir) -> Record | None:
    """settings.json of a run, None if there is none; raises UsageError if it cannot be read."""
    try:
        content = run_dir.settings_file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"{run_dir.settings_file} cannot be read: {error}; set AAE_RUNS_DIR to another folder"
        ) from error
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        raise UsageError(
            f"{run_dir.settings_file} cannot be read: {error}; restore it, or take another AAE_RUN_NAME"
        ) from error
    if record.format != FORMAT:
        raise UsageError(
            f"{run_dir.settings_file} has format {record.format}, this version reads {FORMAT}; "
            "install the version it names, or take another AAE_RUN_NAME"
        )
    return record


def recorded_settings(record: Record, run_dir: RunDir) -> Settings:
    """The settings of a record; raises UsageError if this version does not know one of them."""
    try:
        return Settings(**record.settings)
    except ValidationError as error:
        raise UsageError(
            f"{run_dir.settings_file} was written by version {record.versions.get('aae-job')} of this project and does not "
            f"fit this one: {error}; install that version, or take another AAE_RUN_NAME"
        ) from error


def plan_start(run_dir: RunDir, configuration: Configuration) -> Plan:
    """Compare what is asked with what the run is; raises UsageError, naming each difference, if it is another run."""
    wanted = Record.of(configuration)
    stored = read_record(run_dir)
    if stored is None:
        _refuse_foreign_folder(run_dir)
        return Plan(record=wanted, settings=recorded_settings(wanted, run_dir), is_changed=True, is_finished=False)
    settings = _settings_on_resume(run_dir, recorded_settings(stored, run_dir), recorded_settings(wanted, run_dir))
    values = settings.model_dump(mode="json")
    if (values, wanted.slurm) == (stored.settings, stored.slurm):
        record = stored
    else:
        record = stored.model_copy(update={"settings": values, "slurm": wanted.slurm, "sources": wanted.sources})
    return _plan(run_dir, record, settings, is_changed=record is not stored)


def plan_recorded(run_dir: RunDir) -> Plan:
    """Go on with a run as its settings.json says, whatever the environment holds; raises UsageError if there is none."""
    record = read_record(run_dir)
    if record is None:
        raise UsageError(f"{run_dir.path} holds no settings.json; submit the run again")
    return _plan(run_dir, record, recorded_settings(record, run_dir), is_changed=False)


def _plan(run_dir: RunDir, record: Record, settings: Settings, *, is_changed: bool) -> Plan:
    status = read_status(run_dir)
    steps_done = status.step if status is not None else 0
    if settings.total_steps < steps_done:
        raise UsageError(
            f"{run_dir.path} has done {steps_done} steps, more than the {settings.total_steps} that "
            f"AAE_{'MAX_STEPS' if settings.max_steps else 'EPOCHS'} asks for; set it to at least that, "
            "or take another AAE_RUN_NAME"
        )
    is_finished = status is not None and status.state == "finished" and run_dir.final_summary.is_file()
    ended_early = settings.stop_when_saturated and status is not None and status.reason == "saturated"
    return Plan(
        record=record,
        settings=settings,
        is_changed=is_changed,
        is_finished=is_finished and (ended_early or steps_done == settings.total_steps),
    )


def _settings_on_resume(run_dir: RunDir, stored: Settings, wanted: Settings) -> Settings:
    before = stored.model_dump(mode="json")
    differences = [
        f"  {variable(name)} is {before[name]} in {run_dir.settings_file.name}, now {value}"
        + ("; the learning rates fall over the whole run, so its length makes the weights" if name in TOTAL else "")
        for name, value in wanted.fixed.items()
        if value != before[name]
    ]
    if differences:
        raise UsageError(
            "\n".join(
                [
                    f"{run_dir.path} is a run with other settings; nothing was written",
                    *differences,
                    "set them as they were to go on with it, or take another AAE_RUN_NAME (or none) for a new run",
                ]
            )
        )
    # Filled in by the first start and kept, since another number of threads gives other sums.
    return wanted.model_copy(update={"num_threads": wanted.num_threads or stored.num_threads})


def _refuse_foreign_folder(run_dir: RunDir) -> None:
    if run_dir.path.exists() and not run_dir.path.is_dir():
        raise UsageError(f"{run_dir.path} is a file; take another AAE_RUNS_DIR or AAE_RUN_NAME")
    # Hidden ones are another submitter's, which is about to write the settings; a claim tells of a start that could not.
    foreign = run_dir.path.is_dir() and any(path.name[0] != "." for path in run_dir.path.iterdir())
    if foreign and not run_dir.claim_file(1).exists():
        raise UsageError(
            f"{run_dir.path} holds files but no settings.json: it is no run directory; "
            "take another AAE_RUN_NAME, or move that folder away"
        )


def source_revision() -> str | None:
    """The git commit of the source tree this runs from, None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None
