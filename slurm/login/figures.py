"""The figures of a run's newest evaluation, which status.json holds, or for a run of an earlier version the end of its log."""

from collections.abc import Mapping

from job.errors import AaeError
from job.log.at_step import last_record
from job.rundir.claim import read_segment
from job.rundir.directory import RunDir
from job.rundir.status import Status

Figures = Mapping[str, int | float | None]

_OF_EVALUATION = ("step", "reconstruction_bce", "energy_distance", "energy_distance_q99", "c2st_accuracy")
_OF_STEP = ("d_accuracy", "discriminator_loss", "d_prior", "d_code")
_WITHIN_STEPS = 20_000  # an evaluation is looked for so many steps before the end of the log


def figures_of(run_dir: RunDir, status: Status) -> Figures:
    """By their names in `evaluation` and `saturation` records, with the step that they are of; empty where none are known."""
    if status.evaluation is not None or status.segment == 0:
        return status.evaluation or {}
    try:
        evaluation, step = (_last(run_dir, event) for event in ("evaluation", "step"))
    except (AaeError, OSError):
        return {}
    return {**_numbers(step, _OF_STEP), **_numbers(evaluation, _OF_EVALUATION)} if evaluation else {}


def _last(run_dir: RunDir, event: str) -> dict[str, object] | None:
    def from_step(segment: int) -> int | None:
        claim = read_segment(run_dir, segment)
        return claim.from_step if claim is not None else None

    return last_record(run_dir.events_file, event, float("inf"), from_step, _WITHIN_STEPS)


def _numbers(record: dict[str, object] | None, names: tuple[str, ...]) -> dict[str, int | float]:
    found = {name: (record or {}).get(name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}
