"""The closed list of events: what each record of events.jsonl holds, as types, schema and glossary."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

StopReason = Literal["time_limit", "preemption", "requeue", "cancel", "interrupt", "terminated"]


class Event(BaseModel):
    """What every record begins with."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="When it was written, UTC.")
    event: str
    segment: int = Field(ge=1, description="Which start of the run wrote it; 1 for the first.")
    step: int = Field(ge=0, description="Optimiser steps completed.")


class _Start(Event):
    total_steps: int = Field(ge=1, description="Steps after which the run is finished.")
    device: str = Field(description="Where it trains: cpu, or cuda and the GPU's name.")
    num_threads: int = Field(ge=1, description="CPU threads in use.")
    host: str = Field(description="Host name.")
    pid: int = Field(ge=1, description="Process id on that host.")
    job_id: str | None = Field(description="The scheduler's job, null without one.")
    versions: dict[str, str] = Field(description="Versions of Python, torch and this project.")


class Started(_Start):
    """The first segment begins to train."""

    event: Literal["started"]


class Resumed(_Start):
    """A later segment goes on; records of lower segments with a greater step than from_step are superseded."""

    event: Literal["resumed"]
    from_step: int = Field(ge=0, description="Step of the checkpoint it goes on from; 0 if there was none.")
    previous: str = Field(description="How the segment before ended, in words.")
    steps_lost: int = Field(ge=0, description="Steps known to have been done after from_step, which are done again.")
    seconds_lost: float = Field(
        ge=0, description="Seconds they took: from the checkpoint, or the segment's start, to its last sign of life."
    )
    changed: dict[str, Any] = Field(description="Settings changed since that checkpoint: {name: [old, new]}.")


class Step(Event):
    """How training goes, at multiples of log_every_steps; each value is the mean since the last `step` record."""

    event: Literal["step"]
    epoch: int = Field(ge=1, description="ceil(step / steps an epoch); the last partial batch is dropped.")
    reconstruction_loss: float = Field(description="Mean binary cross entropy a pixel, nats; lower is better.")
    discriminator_loss: float = Field(
        description="-mean(log D(prior) + log(1 - D(code))), nats; 2 ln 2 = 1.386 when D cannot tell codes from prior."
    )
    generator_loss: float = Field(description="-mean(log D(code)), nats; ln 2 = 0.693 when D cannot tell.")
    d_prior: float = Field(ge=0, le=1, description="Mean D(prior): probability; 0.5 when D cannot tell.")
    d_code: float = Field(ge=0, le=1, description="Mean D(code): probability; 0.5 when D cannot tell.")
    d_accuracy: float = Field(ge=0, le=1, description="Share of prior samples and codes that D tells right; 0.5: none.")
    images_per_s: float = Field(ge=0, description="Training images a second.")
    elapsed_s: float = Field(ge=0, description="Seconds of training, over all segments.")


class Lattice(Event):
    """A picture of the latent plane was drawn."""

    event: Literal["lattice"]
    file: str = Field(description="Its path in the run directory.")


class Checkpoint(Event):
    """The run's state is safe on disk."""

    event: Literal["checkpoint"]
    file: str = Field(description="Its path in the run directory.")
    sha256: str = Field(description="Digest of its content, also kept in the file.")
    size_bytes: int = Field(ge=1, description="Its size.")
    seconds: float = Field(ge=0, description="How long saving took.")


class Signal(Event):
    """A signal was noticed, at a step border."""

    event: Literal["signal"]
    signal: str = Field(description="Its name, such as SIGTERM.")


class Stopped(Event):
    """The segment ends early with everything saved; the run can go on."""

    event: Literal["stopped"]
    reason: StopReason = Field(description="Why.")


class Finished(Event):
    """The run has reached its total; `final/` is whole."""

    event: Literal["finished"]
    elapsed_s: float = Field(ge=0, description="Seconds of training, over all segments.")


class Failed(Event):
    """The segment ends in an error."""

    event: Literal["failed"]
    reason: str = Field(description="One word for the cause.")
    error: str = Field(description="The error's message.")
    exit_code: int = Field(description="The process's exit code.")
    host: str = Field(description="Host name.")
    device: str | None = Field(description="Where it trained, null if it had not begun.")
    peak_memory_bytes: int | None = Field(
        description="The most main memory that the process has held, null if unknown."
    )
    traceback: str | None = Field(description="Where in the code, for an error that has no message of its own.")


class Warned(Event):
    """Something a user should know; training goes on."""

    event: Literal["warning"]
    reason: str = Field(description="One word for the cause.")
    message: str = Field(description="What happened and what it means.")


AnyEvent = Annotated[
    Started | Resumed | Step | Lattice | Checkpoint | Signal | Stopped | Finished | Failed | Warned,
    Field(discriminator="event"),
]
EVENTS: dict[str, type[Event]] = {
    get_args(model.model_fields["event"].annotation)[0]: model for model in get_args(get_args(AnyEvent)[0])
}
ADAPTER: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def events_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line of events.jsonl."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ADAPTER.json_schema()}
