"""How fast runs like one have stepped before: in the runs of AAE_RUNS_DIR, and in what a check has measured on a node."""

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.rundir.small_file import DamagedError, names_in, read_json
from slurm.findings import findings_in

# What a step's time depends on, beside where it is made: the levers count by whether they are used.
_SIZES = ("latent_dim", "hidden_dim", "batch_size", "precision")
_LEVERS = ("r1_penalty", "ema_decay", "code_noise")
MOST_RUNS = 500


@dataclass(frozen=True)
class Pace:
    """How a run, or a check on a node, has stepped: milliseconds a step of its fastest and its slowest segment.

    `source` names it, `device` is where that was; None for what it does not tell.
    """

    source: str
    device: str | None
    fastest_ms: float
    slowest_ms: float
    start_up_s: float | None = None
    waits_s: tuple[float, ...] = ()


class _Told(BaseModel):
    """What of a status.json is read here."""

    device: str | None = None
    step_ms_fastest: float | None = None
    step_ms_slowest: float | None = None
    start_up_s: float | None = None
    waits_s: list[float] = []


def likeness(settings: Settings, allocation: Allocation) -> dict[str, Any]:
    """What two runs have in common whose steps take equally long, on the same device."""
    values = settings.model_dump(mode="json")
    on_gpu = settings.device != "cpu" and allocation.gpus != "0"
    threads = None if on_gpu else (settings.num_threads or allocation.cpus_per_task)
    return {
        **{name: values.get(name) for name in _SIZES},
        **{name: bool(values.get(name)) for name in _LEVERS},
        "device": "gpu" if on_gpu else "cpu",
        "num_threads": threads,
    }


class Paces:
    """All that is known below a runs directory; of several hundred runs the first ones by name are looked at."""

    def __init__(self, runs_dir: Path) -> None:
        self._known = list(_of_checks(runs_dir))
        with contextlib.suppress(OSError):
            for name in names_in(runs_dir)[:MOST_RUNS]:
                self._known += _of_run(runs_dir / name)

    def like(self, settings: Settings, allocation: Allocation) -> list[Pace]:
        """That of runs whose steps take as long as these settings' on the same device."""
        wanted = likeness(settings, allocation)
        return [pace for its, pace in self._known if its == wanted]


def _of_run(path: Path) -> Iterator[tuple[dict[str, Any], Pace]]:
    try:
        told = read_json(path / "status.json", _Told)
        if told is None or told.step_ms_fastest is None or told.step_ms_slowest is None:
            return
        record = orjson.loads((path / "settings.json").read_bytes())
        settings = Settings.model_validate(record["settings"])
        allocation = Allocation.model_validate(record["slurm"])
    except (OSError, DamagedError, ValueError, KeyError, TypeError):
        return  # no run, or one of a version that this one does not know
    its = {**likeness(settings, allocation), "device": "cpu" if told.device in (None, "cpu") else "gpu"}
    yield (
        its,
        Pace(path.name, told.device, told.step_ms_fastest, told.step_ms_slowest, told.start_up_s, tuple(told.waits_s)),
    )


def _of_checks(runs_dir: Path) -> Iterator[tuple[dict[str, Any], Pace]]:
    for findings in findings_in(runs_dir):
        if findings.step_ms is not None:
            source = f"check --on-node on {findings.host}"
            yield findings.like, Pace(source, findings.device, findings.step_ms, findings.step_ms)


def median_wait_s(paces: list[Pace]) -> float | None:
    """The median of the waits that they have met; None for none."""
    waits = [wait_s for pace in paces for wait_s in pace.waits_s]
    return statistics.median(waits) if waits else None
