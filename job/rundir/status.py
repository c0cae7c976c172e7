"""status.json: what a run is doing now, in one small file that is replaced at least every 10 s."""

import time
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from job.rundir.directory import FULL, RunDir
from job.rundir.small_file import DamagedError, read_json

DAMAGED = "damaged_status"

_BLOCK_BYTES = 4096

State = Literal["submitted", "running", "waiting", "finished", "failed", "cancelled"]
Verdict = Literal["not_yet", "saturated", "discriminator_winning", "false_saturation", "collapsed"]

_OF_THE_RUN = {
    "step",
    "checkpoint_step",
    "steps_lost",
    "saturation",
    "saturated_at_step",
    "evaluation",
    "segment",
    "avoided_nodes",
    "cluster",
    "device",
} | {
    "start_up_s",
    "step_ms",
    "step_ms_fastest",
    "step_ms_slowest",
    "waits_s",
}


def now() -> str:
    """The time in UTC as ISO 8601, to the millisecond."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """A time in seconds since the epoch as status.json tells it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Status(BaseModel):
    """The content of status.json.

    `reason` is one word for programs, `verdict` a sentence for people, while training about saturation, then about the end;
    `saturation` is that verdict in one word, null before training, and `saturated_at_step` the step that first made it
    `saturated`, null if none has; `evaluation` holds the figures of the last window, those of a `saturation` record, and the step
    that they are of, null before the first; `step` and `checkpoint_step` count optimiser steps, done and saved, of
    `total_steps`, 0 when unknown; `steps_lost` are those that all resumes together are known to have done again, null of a run
    that an earlier version began; `eta_s` is in seconds, null when unknown; `progress_at` is when a heartbeat first saw the
    step; the job is not to be started on `avoided_nodes` again.

    For forecasts: `started_at` is when this segment claimed the run, `start_up_s` what passed from then to its training,
    `limit_at` when its allocation ends, null where nothing tells; `step_ms` is a step's mean time in it, all that trains beside the
    step included, `step_ms_fastest` and `step_ms_slowest` that of the run's segments of at least 100 steps; `waits_s` are the
    seconds between the last segments that Slurm started again by itself. `peak_memory_bytes` is the most main memory that the
    process has held; `crash` tells the story of the error that ended the last segment, null if none did.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    state: State
    reason: str | None = None
    saturation: Verdict | None = None
    saturated_at_step: int | None = Field(None, ge=0)
    evaluation: dict[str, int | float | None] | None = None
    verdict: str | None = None
    exit_code: int | None = None
    step: int = Field(0, ge=0)
    checkpoint_step: int | None = Field(None, ge=0)
    total_steps: int = Field(ge=0)
    segment: int = Field(0, ge=0)
    steps_lost: int | None = Field(None, ge=0)
    cluster: str | None = None
    job_id: str | None = None
    host: str | None = None
    pid: int | None = None
    updated_at: str = Field(default_factory=now)
    progress_at: str | None = None
    eta_s: float | None = None
    started_at: str | None = None
    limit_at: str | None = None
    start_up_s: float | None = Field(None, ge=0)
    step_ms: float | None = Field(None, ge=0)
    step_ms_fastest: float | None = Field(None, ge=0)
    step_ms_slowest: float | None = Field(None, ge=0)
    waits_s: list[float] = []
    avoided_nodes: list[str] = []
    device: str | None = None
    peak_memory_bytes: int | None = None
    crash: dict[str, Any] | None = None

    @field_validator("updated_at", "progress_at", "started_at", "limit_at")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("no time zone")
        return value

    @classmethod
    def after(cls, before: "Status | None", state: State, total_steps: int, **changes: Any) -> "Status":
        """A new status that keeps of the one before what is true of the run, whatever its segment."""
        kept = before.model_dump(include=_OF_THE_RUN) if before is not None else {}
        return cls(state=state, total_steps=total_steps, **{**kept, **changes})


def read_status(run_dir: RunDir) -> Status | None:
    """The status of a run, None if there is none; raises OSError if it cannot be read now.

    Of a damaged one, what the run directory shows: a run that waits at its newest checkpoint, for the reason DAMAGED.
    """
    try:
        return read_json(run_dir.status_file, Status)
    except DamagedError as error:
        step = next(iter(run_dir.checkpoint_steps()), 0)
        return Status(
            state="waiting", reason=DAMAGED, verdict=str(error), step=step, checkpoint_step=step or None, total_steps=0
        )


def write_status(run_dir: RunDir, status: Status) -> None:
    """Replace status.json; raises OSError or TakenOverError.

    Where the disk is full the file is written over in place, in the block that it has: readers still see a sign of life and
    the verdict.
    """
    try:
        # Not synced: a heartbeat that a power cut takes away is worth nothing afterwards.
        run_dir.replace(run_dir.status_file, _encoded(status), sync=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        content = _encoded(status)
        if len(content) > _BLOCK_BYTES:
            content = _encoded(status.model_copy(update={"crash": None}))
        run_dir.overwrite(run_dir.status_file, content)


def _encoded(status: Status) -> bytes:
    return status.model_dump_json(indent=1).encode() + b"\n"
