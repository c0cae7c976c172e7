"""What a comparison has to know of a run: from its small files, and from a few pages of its log however long that is."""

import re
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from job.config.settings import FREE, Settings
from job.config.settings_file import read_record, recorded_settings
from job.errors import AaeError, UsageError
from job.log.at_step import last_record
from job.log.reader import parse, read_lines
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir
from job.rundir.small_file import names_in, read_json
from job.rundir.status import State, Status, Verdict, read_status

SECONDS_PER_HOUR = 3600


class Evaluation(BaseModel):
    """Of the keys of an evaluation those that are compared; what needs labels or samples only `aae-job evaluate` measures."""

    model_config = ConfigDict(allow_inf_nan=False)

    step: int
    num_images: int | None = None
    reconstruction_bce: float | None = None
    energy_distance: float | None = None
    energy_distance_q99: float | None = None
    c2st_accuracy: float | None = None
    knn10_accuracy: float | None = None
    linear_probe_accuracy: float | None = None
    parzen_log_likelihood: float | None = None


class Trained(BaseModel):
    """Of a `step` record what is compared: the mean reconstruction loss of the steps before it, while training."""

    model_config = ConfigDict(allow_inf_nan=False)

    step: int
    reconstruction_loss: float | None = None


ASKED_FOR = ("knn10_accuracy", "linear_probe_accuracy", "parzen_log_likelihood")


@dataclass(frozen=True)
class Facts:
    """A run: its settings that enter the weights but for the seed, with its total, and how it has gone so far.

    `device` and `verdict` are None where they are not known yet. `course` holds what is known of `segments`, `steps_lost`,
    `steps_to_verdict` and `hours_to_verdict`, to the first verdict of saturation, in hours of training. `last` is the last
    evaluation of its own, of which there is one every `window` steps, `trained` the last `step` record, and `asked_for` are the
    evaluations of `aae-job evaluate`.
    """

    run_dir: RunDir
    settings: dict[str, Any]
    seed: int
    versions: dict[str, str]
    device: str | None
    verdict: Verdict | None
    step: int
    state: State | None
    course: dict[str, float]
    window: int
    last: Evaluation | None
    trained: Trained | None
    asked_for: list[Evaluation]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run_dir.path.name

    @property
    def is_finished(self) -> bool:
        """Whether it has done all its steps, or stopped saturated as it was to."""
        return self.state == "finished"


def evaluation_of(run_dir: RunDir, window: int, up_to: float = inf) -> Evaluation | None:
    """A run's last evaluation of its own up to a step, with so many steps between two; None if there is none.

    Raises OSError, or AaeError if it is damaged.
    """
    record = _last(run_dir, "evaluation", up_to, 2 * window)
    if record is None:
        return None
    try:
        return Evaluation.model_validate(record)
    except ValidationError as error:
        raise AaeError(f"{run_dir.events_file}: the evaluation of step {record['step']} is damaged") from error


def trained_of(run_dir: RunDir, up_to: float = inf) -> Trained | None:
    """A run's last `step` record up to a step; None if there is none, or a damaged one. Raises OSError."""
    record = _last(run_dir, "step", up_to)
    try:
        return Trained.model_validate(record) if record is not None else None
    except ValidationError:
        return None


def read_facts(run_dir: RunDir) -> Facts:
    """What is known of a run now; raises OSError if it cannot be read, AaeError or ValueError if a file of it is damaged."""
    record = read_record(run_dir)
    if record is None:
        raise UsageError(f"{run_dir.settings_file} is gone")
    # What an earlier version did not know yet it did as the default says.
    settings = {name: value for name, value in {**_defaults(), **record.settings}.items() if name not in FREE}
    if settings["max_steps"] is not None:
        settings["epochs"] = None
    seed = settings.pop("seed")
    window = record.settings.get("evaluate_every_steps") or recorded_settings(record, run_dir).window_steps
    status = read_status(run_dir)
    return Facts(
        run_dir,
        settings,
        seed,
        record.versions,
        _device(run_dir, status),
        _verdict(run_dir, status),
        status.step if status is not None else 0,
        status.state if status is not None else None,
        _course(run_dir, status),
        window,
        evaluation_of(run_dir, window),
        trained_of(run_dir),
        _asked_for(run_dir),
    )


@cache
def _defaults() -> dict[str, Any]:
    return Settings().model_dump(mode="json")


def _device(run_dir: RunDir, status: Status | None) -> str | None:
    if status is not None and status.device is not None:
        return status.device
    # It has been submitted anew.
    started = parse(next(read_lines(run_dir.events_file), b""))
    return started.get("device") if started is not None else None


class _Judgement(BaseModel):
    verdict: Verdict


class _Summary(BaseModel):
    saturation: _Judgement | None = None


def _verdict(run_dir: RunDir, status: Status | None) -> Verdict | None:
    if status is not None and status.saturation is not None:
        return status.saturation
    summary = read_json(run_dir.final_summary, _Summary)
    return summary.saturation.verdict if summary is not None and summary.saturation is not None else None


def _course(run_dir: RunDir, status: Status | None) -> dict[str, float]:
    if status is None or status.segment == 0:
        return {}
    saturated_at = status.saturated_at_step
    trained = _last(run_dir, "step", saturated_at) if saturated_at is not None else None
    known = {
        "steps_to_verdict": saturated_at,
        "hours_to_verdict": trained["elapsed_s"] / SECONDS_PER_HOUR if trained is not None else None,
        "segments": status.segment,
        "steps_lost": 0 if status.segment == 1 else status.steps_lost,
    }
    return {name: value for name, value in known.items() if value is not None}


def _asked_for(run_dir: RunDir) -> list[Evaluation]:
    names = [name for name in names_in(run_dir.evaluations) if re.fullmatch(r"step-\d{12}\.json", name)]
    found = [read_json(run_dir.evaluations / name, Evaluation) for name in names]
    return [evaluation for evaluation in found if evaluation is not None]


def _last(run_dir: RunDir, event: str, up_to: float, within: float = inf) -> dict[str, Any] | None:
    def from_step(segment: int) -> int | None:
        claim = read_segment(run_dir, segment)
        return claim.from_step if claim is not None else None

    return last_record(run_dir.events_file, event, up_to, from_step, within)
