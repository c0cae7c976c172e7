"""Many runs as few rows: seeds together, unlike runs apart and marked, every figure at a step that all have."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, inf, sqrt
from operator import attrgetter
from typing import Any, get_args

from job.rundir.status import Verdict
from slurm.login.facts import ASKED_FOR, Evaluation, Facts, Trained, evaluation_of, trained_of

_OF_EVALUATIONS = tuple(name for name in Evaluation.model_fields if name not in ("step", "num_images"))
MEASURED = ("reconstruction_loss", *_OF_EVALUATIONS)
COURSE = ("steps_to_verdict", "hours_to_verdict", "segments", "steps_lost")
AGAIN = "the same settings and seed again: no further seed, so it is not averaged with the others"


@dataclass(frozen=True)
class Figure:
    """Over the seeds: mean, standard deviation with n - 1 (None of one), and how many have it."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: list[float]) -> "Figure":
        """The figure of at least one value."""
        n = len(values)
        mean = fsum(values) / n
        sd = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return cls(mean, sd, n)


@dataclass(frozen=True)
class Row:
    """Runs that differ in the seed alone; `mark` is the number of the note that says what is unlike in it, None if nothing is."""

    settings: dict[str, Any]
    runs: list[str]
    seeds: list[int]
    verdicts: dict[str, int]
    figures: dict[str, Figure]
    mark: int | None


@dataclass(frozen=True)
class Comparison:
    """The rows, the settings that differ between them, and what is to be said below.

    `common_step` is the step of all figures, None where nothing is measured or each run's last figures are of another step;
    `is_cut` tells that some runs have later ones, `is_about` that some have none of that very step, but of one before. `notes`
    are numbered from 1.
    """

    rows: list[Row]
    differing: list[str]
    common_step: int | None
    is_cut: bool
    is_about: bool
    notes: list[str]


@dataclass(frozen=True)
class _Taken:
    """A run with its figures at the step of the comparison, and what may make them unlike those of others, None if unknown."""

    facts: Facts
    figures: dict[str, float]
    facets: dict[str, str | None]


def compare(runs: list[Facts]) -> Comparison:
    """Compare runs; raises OSError, or AaeError if the record of an evaluation is damaged."""
    last, trained = [run.last for run in runs], [run.trained for run in runs]
    evaluated = {evaluation.step for evaluation in last if evaluation is not None}
    steps = evaluated or {record.step for record in trained if record is not None}
    are_whole = len({run.step for run in runs}) == 1 and all(run.is_finished for run in runs)
    is_cut = len(steps) > 1 and not are_whole
    up_to = min(steps) if is_cut else inf
    if is_cut:
        last = [evaluation_of(run.run_dir, run.window, up_to) if evaluated else None for run in runs]
        trained = [trained_of(run.run_dir, up_to) for run in runs]
    taken = [_take(*of, up_to) for of in zip(runs, last, trained, strict=True)]
    rows, notes = _rows(taken)
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    differing = [name for name in names if len({json.dumps(row.settings.get(name)) for row in rows}) > 1]
    common_step = min(steps) if is_cut or len(steps) == 1 else None
    reached = [run.step if evaluation is None else evaluation.step for run, evaluation in zip(runs, last, strict=True)]
    is_about = is_cut and min(reached) < up_to
    return Comparison(rows, differing, common_step, is_cut, is_about, notes)


def _take(run: Facts, own: Evaluation | None, trained: Trained | None, up_to: float) -> _Taken:
    since = own.step if own is not None else 0
    between = [evaluation for evaluation in run.asked_for if since <= evaluation.step <= up_to]
    asked_for = max(between, key=attrgetter("step"), default=None)
    own = own or asked_for
    values = {name: getattr(asked_for if name in ASKED_FOR else own, name, None) for name in _OF_EVALUATIONS}
    values |= {"reconstruction_loss": trained.reconstruction_loss if trained is not None else None, **run.course}
    facets = {
        "device": run.device,
        "aae-job": run.versions.get("aae-job", "unknown"),
        "torch": run.versions.get("torch", "unknown"),
        "data set": str(run.settings.get("dataset")),
        "images evaluated": _num_images(own),
        "images of aae-job evaluate": _num_images(asked_for),
    }
    return _Taken(run, {name: value for name, value in values.items() if value is not None}, facets)


def _num_images(evaluation: Evaluation | None) -> str | None:
    if evaluation is None:
        return None
    return f"{evaluation.num_images:,}" if evaluation.num_images is not None else "unknown"


def _rows(taken: list[_Taken]) -> tuple[list[Row], list[str]]:
    """The rows in the order of their first runs, and the notes on those that are unlike most."""
    usual = _usual(taken)
    groups: dict[tuple[str, str, int], list[_Taken]] = {}
    before: Counter[tuple[str, str, int]] = Counter()
    for one in taken:
        settings = json.dumps(one.facts.settings, sort_keys=True)
        unlike = ", ".join(
            f"{name} {value}, not {usual[name]}"
            for name, value in one.facets.items()
            if value not in (None, usual[name])
        )
        again = before[settings, unlike, one.facts.seed]
        before[settings, unlike, one.facts.seed] += 1
        groups.setdefault((settings, unlike, again), []).append(one)
    notes: list[str] = []
    rows = []
    for (_, unlike, again), members in groups.items():
        note = "; ".join([unlike] * bool(unlike) + [AGAIN] * bool(again))
        if note and note not in notes:
            notes.append(note)
        rows.append(_row(members, notes.index(note) + 1 if note else None))
    return rows, notes


def _usual(taken: list[_Taken]) -> Mapping[str, str | None]:
    """Of each facet what most runs have, of which it is known."""
    usual = {}
    for name in taken[0].facets if taken else ():
        known = Counter(value for one in taken if (value := one.facets[name]) is not None)
        usual[name] = known.most_common(1)[0][0] if known else None
    return usual


def _row(members: list[_Taken], mark: int | None) -> Row:
    verdicts = Counter(verdict for one in members if (verdict := one.facts.verdict) is not None)
    columns = {name: [one.figures[name] for one in members if name in one.figures] for name in (*MEASURED, *COURSE)}
    return Row(
        members[0].facts.settings,
        [one.facts.name for one in members],
        [one.facts.seed for one in members],
        {verdict: verdicts[verdict] for verdict in _VERDICTS if verdict in verdicts},
        {name: Figure.of(values) for name, values in columns.items() if values},
        mark,
    )


# The one that is hoped for first.
_VERDICTS = sorted(get_args(Verdict), key=lambda verdict: bool(verdict != "saturated"))
