"""The closed list of events: what each record of events.jsonl holds, as types, schema and glossary."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from job.rundir.claim import StopReason
from job.rundir.status import Verdict


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


_STEP_FIELDS = list(Step.model_fields)
# What each training step reads off, in this order; means over the batch.
READINGS = tuple(_STEP_FIELDS[_STEP_FIELDS.index("reconstruction_loss") : _STEP_FIELDS.index("d_accuracy") + 1])
# What of a `step` record is the same in every run of the same settings; the rest is times.
EXACT = ("step", "epoch", *READINGS)


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


class Saturation(Event):
    """The verdict on saturation has changed at the end of a window; the numbers that caused it are of held-out images."""

    event: Literal["saturation"]
    verdict: Verdict = Field(description="What it is now; see When it is done.")
    previous: Verdict = Field(description="What it was before.")
    reason: str = Field(description="Why, in words.")
    reconstruction_bce: float = Field(description="As in `evaluation`.")
    reconstruction_slope_percent: float = Field(
        description="Theil and Sen's slope over the last windows, times their number, in per cent of their median."
    )
    reconstruction_trend_p: float = Field(
        description="Probability of so clear a fall by chance: Mann and Kendall's test, one-sided, over the same windows."
    )
    discriminator_loss: float = Field(description="As in `step`, but in eval mode; nats.")
    d_accuracy: float = Field(ge=0, le=1, description="As in `step`, but in eval mode.")
    d_prior: float = Field(ge=0, le=1, description="As in `step`, but in eval mode.")
    d_code: float = Field(ge=0, le=1, description="As in `step`, but in eval mode.")
    energy_distance: float = Field(description="As in `evaluation`.")
    energy_distance_q99: float = Field(description="As in `evaluation`.")
    c2st_accuracy: float = Field(ge=0, le=1, description="As in `evaluation`.")
    smallest_eigenvalue: float = Field(description="The first of code_cov_eigenvalues, as in `evaluation`.")


class Evaluated(Event):
    """These weights on held-out images, in eval mode: in a run 1,000, without what needs labels or samples."""

    event: Literal["evaluation"]
    num_images: int | None = Field(
        None, ge=1, description="How many images it saw; records of earlier versions do not say."
    )
    reconstruction_bce: float = Field(description="Mean binary cross entropy a pixel, nats; lower is better.")
    reconstruction_mse: float = Field(ge=0, description="Mean squared error a pixel, of pixels in [0, 1].")
    energy_distance: float = Field(
        description="2 E d(x,y) - E d(x,x') - E d(y,y') of codes x and the prior y itself, in the prior's std; 0 if they match "
        "(Szekely and Rizzo, 2013); unbiased, so it may be below 0."
    )
    energy_distance_q99: float = Field(
        description="What it stays below in 99 % of cases if they match: the null band, by samples of the prior."
    )
    c2st_accuracy: float = Field(
        ge=0,
        le=1,
        description="Share of codes and prior samples that a small classifier, trained afresh on others of them, tells right; "
        "0.5 if they match (Lopez-Paz and Oquab, 2017).",
    )
    code_mean: list[float] = Field(description="Mean of the codes in each dimension, in units of the prior's std; 0s.")
    code_cov_eigenvalues: list[float] = Field(
        description="Eigenvalues of the codes' covariance in rising order, in units of the prior's variance; 1s."
    )
    empty_cells: int | None = Field(
        description="Cells without a code of the 10 x 10 grid of Phi(z), which hold equal mass of the prior; two dimensions."
    )
    knn10_accuracy: float | None = Field(
        description="Share of held-out codes whose class is the commonest of the 10 nearest codes of training images."
    )
    linear_probe_accuracy: float | None = Field(
        description="Share of held-out codes whose class a logistic regression on the codes of training images gets right."
    )
    class_share: list[float] | None = Field(
        description="Share of 10,000 decoded prior samples that a classifier trained on the data set gives to each class."
    )
    parzen_log_likelihood: float | None = Field(
        description="Mean log-likelihood of the test images, nats, under Gaussian kernels on 10,000 decoded prior samples "
        "(Goodfellow et al., 2014; Makhzani et al., 2015)."
    )
    parzen_stderr: float | None = Field(description="Its standard error: standard deviation / sqrt(number of images).")


class Finished(Event):
    """The run has reached its total, or has been ended as saturated; `final/` is whole."""

    event: Literal["finished"]
    elapsed_s: float = Field(ge=0, description="Seconds of training, over all segments.")


class Story(BaseModel):
    """What is known of an error that ended a segment."""

    reason: str = Field(description="One word for the cause.")
    error: str = Field(description="The error's message.")
    exit_code: int = Field(description="The process's exit code.")
    host: str = Field(description="Host name.")
    device: str | None = Field(description="Where it trained, null if it had not begun.")
    peak_memory_bytes: int | None = Field(
        description="The most main memory that the process has held, null if unknown."
    )
    traceback: str | None = Field(description="Where in the code, for an error that has no message of its own.")


class Failed(Story, Event):
    """The segment ends in an error."""

    event: Literal["failed"]


class Warned(Event):
    """Something a user should know; training goes on."""

    event: Literal["warning"]
    reason: str = Field(description="One word for the cause.")
    message: str = Field(description="What happened and what it means.")


AnyEvent = Annotated[
    Started
    | Resumed
    | Step
    | Lattice
    | Checkpoint
    | Signal
    | Stopped
    | Saturation
    | Evaluated
    | Finished
    | Failed
    | Warned,
    Field(discriminator="event"),
]
EVENTS: dict[str, type[Event]] = {
    get_args(model.model_fields["event"].annotation)[0]: model for model in get_args(get_args(AnyEvent)[0])
}
# What an evaluation holds, also as a file.
EVALUATION_KEYS = ("step", *(name for name in Evaluated.model_fields if name not in Event.model_fields))
ADAPTER: TypeAdapter[Event] = TypeAdapter(AnyEvent)


def events_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line of events.jsonl."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ADAPTER.json_schema()}
