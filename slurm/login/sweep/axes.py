"""`--sweep`: axes of values, and the runs that their product makes, each a configuration of its own."""

import hashlib
import itertools
import json
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.config.flags import Flags
from job.config.settings import checked_run_name
from job.config.sources import FIELDS, Configuration, flag, nearest, spelt, variable
from job.errors import SettingsError, UsageError
from job.rundir.sweep import Axis, Element, Sweep

MOST = 10_000  # elements of a sweep
_OWN = ("runs_dir", "run_name")  # say where a run is, not what


@dataclass(frozen=True)
class AxisOfTexts:
    """Settings that vary together, and for each point of the axis a text for each of them, as it was typed."""

    fields: list[str]
    points: list[list[str]]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Asked:
    """The sweep that a command asks for, and the configuration of each of its runs, by the run's name."""

    sweep: Sweep
    runs: dict[str, Configuration]

    @property
    def runs_dir(self) -> Path:
        """AAE_RUNS_DIR."""
        return next(iter(self.runs.values())).settings.runs_dir


def read_axes(texts: list[str]) -> list[AxisOfTexts]:
    """The axes that `FIELD=V,V`, `FIELD=0..4` and `FIELD,FIELD=V:V,V:V` describe; raises UsageError with every mistake."""
    axes, mistakes = [], []
    for text in texts:
        try:
            axes.append(_read_axis(text))
        except ValueError as error:
            mistakes.append(f"  --sweep {text}: {error}")
    fields = [field for axis in axes for field in axis.fields]
    for field in dict.fromkeys(field for field in fields if fields.count(field) > 1):
        mistakes.append(f"  --sweep: {variable(field)} is in more than one place; give each setting one axis")
    size = 1
    for axis in axes:
        size *= len(axis)
    if size > MOST:
        mistakes.append(f"  --sweep: {size:,} runs are more than the {MOST:,} of a sweep; give fewer values")
    if mistakes:
        raise UsageError("\n".join(["the sweep cannot be read; nothing was written", *mistakes]))
    return axes


def _read_axis(text: str) -> AxisOfTexts:
    names, equals, values = text.partition("=")
    if not equals or not values:
        raise ValueError("write FIELD=VALUE,VALUE, such as seed=0..4 or latent_dim,prior_std=2:1,8:5")
    fields = [_field(name) for name in names.split(",")]
    points = [_point(fields, point) for part in values.split(",") for point in _range(part, len(fields))]
    return AxisOfTexts(fields, points)


def _field(name: str) -> str:
    field = name.strip().lower().replace("-", "_").removeprefix("__").removeprefix("aae_")
    if field not in FIELDS:
        raise ValueError(f"{name!r} is not a setting; did you mean {nearest(field, list(FIELDS))}?")
    if field.startswith("slurm_"):
        raise ValueError(f"{variable(field)} is of the allocation, which all runs of a sweep share; submit two sweeps")
    if field in _OWN:
        raise ValueError(f"{variable(field)} says where runs are, not what they do; it cannot vary in a sweep")
    return field


def _range(text: str, num_fields: int) -> list[str]:
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if found is None or num_fields > 1:
        return [text]
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise ValueError(f"{text} has no number in it: the first is to be the lesser")
    if last - first >= MOST:
        raise ValueError(f"{text} are more than the {MOST:,} runs of a sweep")
    return [str(number) for number in range(first, last + 1)]


def _point(fields: list[str], text: str) -> list[str]:
    values = text.split(":") if len(fields) > 1 else [text]
    if len(values) != len(fields):
        raise ValueError(f"{text!r} has {len(values)} values for the {len(fields)} settings {', '.join(fields)}")
    if any(not value.strip() for value in values):
        raise ValueError("a value is empty; `none` stands for no value")
    return [value.strip() for value in values]


def ask(axes: list[AxisOfTexts], flags: Flags) -> Asked:
    """The sweep over some axes, the first the slowest, values checked and spelt as the settings spell them.

    Raises SettingsError with all mistakes of all elements, UsageError if two elements would be one run.
    """
    points = list(itertools.product(*(range(len(axis)) for axis in axes)))
    typed = [_texts(axes, point) for point in points]
    configurations = _read_all(flags, typed)
    dumps = [configuration.settings.model_dump(mode="json") for configuration in configurations]
    values = [{field: dump[field] for field in texts} for dump, texts in zip(dumps, typed, strict=True)]
    stem = configurations[0].settings.run_name
    if stem is not None:
        configurations = _called(configurations, [_named(stem, own) for own in values])
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, configuration in enumerate(configurations):
        numbers[configuration.settings.name].append(number)
    for run, same in numbers.items():
        if len(same) > 1:
            _refuse_one_name(run, [values[n] for n in same], [configurations[n] for n in same])
    understood = [Axis(fields=axis.fields, values=_understood(axis, n, points, values)) for n, axis in enumerate(axes)]
    shared = configurations[0].settings.fixed.items()
    base = {name: value for name, value in shared if all(c.settings.fixed.get(name) == value for c in configurations)}
    sweep = Sweep(
        name=stem or _default_name(understood, base),
        axes=understood,
        base=base,
        elements=[Element(index=n, run=run, values=values[n]) for n, run in enumerate(numbers)],
    )
    return Asked(sweep, dict(zip(numbers, configurations, strict=True)))


def _texts(axes: list[AxisOfTexts], point: tuple[int, ...]) -> dict[str, str]:
    """What was typed for one run of the product."""
    return {
        field: text
        for axis, number in zip(axes, point, strict=True)
        for field, text in zip(axis.fields, axis.points[number], strict=True)
    }


def _read_all(flags: Flags, changes: list[dict[str, str]]) -> list[Configuration]:
    configurations: list[Configuration] = []
    mistakes: dict[str, None] = {}
    for change in changes:
        try:
            configurations.append(flags.read_configuration(change))
        except SettingsError as error:
            mistakes |= dict.fromkeys(error.mistakes)
    if mistakes:
        raise SettingsError(list(mistakes))
    return configurations


def _called(configurations: list[Configuration], names: list[str]) -> list[Configuration]:
    """The same runs under other names; raises SettingsError."""
    mistakes: dict[str, None] = {}
    for name in names:
        try:
            checked_run_name(name)
        except ValueError as error:
            mistakes[f"AAE_RUN_NAME={name} (of an element): {error}"] = None
    if mistakes:
        raise SettingsError(list(mistakes))
    return [
        replace(of, settings=of.settings.model_copy(update={"run_name": name}))
        for of, name in zip(configurations, names, strict=True)
    ]


def _understood(
    axis: AxisOfTexts, number: int, points: list[tuple[int, ...]], values: list[dict[str, Any]]
) -> list[list[Any]]:
    """The values of an axis as the settings spell them."""
    found = {point[number]: [own[field] for field in axis.fields] for point, own in zip(points, values, strict=True)}
    return [found[n] for n in range(len(axis))]


def _named(stem: str, values: dict[str, Any]) -> str:
    return "--".join([stem, *(f"{field}={spelt(value)}" for field, value in values.items())])


def described(values: dict[str, Any]) -> str:
    """The values of an element, for people."""
    return " ".join(f"{field}={spelt(value)}" for field, value in values.items())


def _default_name(axes: list[Axis], base: dict[str, Any]) -> str:
    said = json.dumps([[axis.model_dump() for axis in axes], base], sort_keys=True)
    return f"sweep-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def _refuse_one_name(run: str, values: list[dict[str, Any]], configurations: list[Configuration]) -> None:
    two = f"{described(values[0])} and {described(values[1])}"
    first, second = (configuration.settings for configuration in configurations[:2])
    if first.fixed == second.fixed and first.total_steps == second.total_steps:
        raise UsageError(
            f"--sweep: {two} are the same run, {run}: nothing that makes the weights differs; nothing was written. "
            "Leave one of them out"
        )
    raise UsageError(
        f"--sweep: {two} would both be called {run}, since what differs does not enter a run's own name; nothing was "
        "written. Set AAE_RUN_NAME, and each is called after its values"
    )


def loop_to_type(axes: list[AxisOfTexts], flags: Flags) -> str:
    """The shell line that trains the runs of a sweep here, one after the other."""
    all_typed = [_texts(axes, point) for point in itertools.product(*(range(len(axis)) for axis in axes))]
    stem = flags.read_configuration(all_typed[0]).settings.run_name
    given = {name: value for name, value in flags.values.items() if name != "run_name" and name not in all_typed[0]}
    command = ["aae-job", *(word for name, value in given.items() for word in (flag(name), value))]
    if flags.options.env_file:
        command += ["--env-file", str(flags.options.env_file)]
    if any(len(axis.fields) > 1 for axis in axes):
        named = [{**texts, "run_name": _named(stem, dict(texts))} if stem else texts for texts in all_typed]
        return "; ".join(shlex.join([*command, *(w for n, v in own.items() for w in (flag(n), v))]) for own in named)
    fields = [axis.fields[0] for axis in axes]
    line = " ".join([shlex.join(command), *(f"{flag(field)} ${field}" for field in fields)])
    if stem is not None:
        line += f" --run-name {'--'.join([stem, *(f'{field}=${field}' for field in fields)])}"
    for axis in reversed(axes):
        line = f"for {axis.fields[0]} in {shlex.join(point[0] for point in axis.points)}; do {line}; done"
    return line
