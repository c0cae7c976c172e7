"""settings.json: what a run is, written down once."""

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.errors import UsageError
from job.machine import source_digest, versions
from job.rundir.directory import RunDir
from job.rundir.small_file import DamagedError, read_json

if TYPE_CHECKING:  # who only reads the file waits for no parser of variables
    from job.config.sources import Configuration

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
    source_digest: str | None = None

    @classmethod
    def of(cls, configuration: "Configuration") -> "Record":
        """The record of a new run."""
        settings = configuration.settings
        # Both must not change with a later version's defaults.
        filled = {"run_name": settings.name, "evaluate_every_steps": settings.window_steps}
        return cls(
            format=FORMAT,
            settings=settings.model_copy(update=filled).model_dump(mode="json"),
            sources=configuration.sources,
            slurm=configuration.allocation.model_dump(mode="json"),
            versions=versions(),
            source_revision=source_revision(),
            source_digest=source_digest(),
        )

    def write(self, run_dir: RunDir) -> None:
        """Replace settings.json."""
        run_dir.replace(run_dir.settings_file, (json.dumps(self.model_dump(), indent=1) + "\n").encode())


def read_record(run_dir: RunDir) -> Record | None:
    """settings.json of a run, None if there is none; raises UsageError if it is damaged, OSError if it cannot be read now."""
    try:
        record = read_json(run_dir.settings_file, Record)
    except DamagedError as error:
        raise UsageError(f"{error}; restore it, or take another AAE_RUN_NAME") from error
    if record is None:
        return None
    if record.format != FORMAT:
        raise UsageError(
            f"{run_dir.settings_file} has format {record.format}, this version reads {FORMAT}; "
            "install the version it names, or take another AAE_RUN_NAME"
        )
    return record


def recorded_settings(record: Record, run_dir: RunDir) -> Settings:
    """The settings of a record; raises UsageError if this version does not know one of them."""
    try:
        settings = Settings(**record.settings)
        if settings.evaluate_every_steps is None:  # what an earlier version evaluated after
            settings = settings.model_copy(update={"evaluate_every_steps": max(2, settings.steps_per_epoch)})
        return settings
    except ValidationError as error:
        raise _other_version(record, run_dir, error) from error


def recorded_allocation(run_dir: RunDir) -> Allocation | None:
    """What a run asks of Slurm; None if its settings are damaged, which no restart would help. Raises OSError."""
    try:
        record = read_record(run_dir)
        return allocation_of(record, run_dir) if record is not None else None
    except UsageError:
        return None


def allocation_of(record: Record, run_dir: RunDir) -> Allocation:
    """What a record asks of Slurm; raises UsageError if this version does not know it."""
    try:
        return Allocation.model_validate(record.slurm)
    except ValidationError as error:
        raise _other_version(record, run_dir, error) from error


def _other_version(record: Record, run_dir: RunDir, error: ValidationError) -> UsageError:
    return UsageError(
        f"{run_dir.settings_file} was written by version {record.versions.get('aae-job')} of this project and does not "
        f"fit this one: {error}; install that version, or take another AAE_RUN_NAME"
    )


def source_revision() -> str | None:
    """The git commit of the source tree this runs from, None for an installed package."""
    root = Path(__file__).resolve().parents[2]
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
