"""The plan of a run: how long it trains, in how many segments, what an interruption costs, what it leaves; nothing is guessed."""

import heapq
from dataclasses import dataclass
from typing import Any

from job.commandline import duration
from job.config.allocation import Allocation
from job.config.settings import Settings
from job.output import size
from job.segment.footprint import Footprint, footprint
from slurm.login.forecast import REQUEUE_S, START_UP_S, Forecast, forecast
from slurm.login.paces import Pace, Paces, median_wait_s

_MEASURE = "aae-slurm check --on-node"


@dataclass(frozen=True)
class RunPlan:
    """What is ahead of a run.

    `fastest` and `slowest` are the formula's terms at the paces of the fastest and the slowest segment known, None where no
    pace is; `paces` are where these come from. `wait_s` is that between two segments: `met` says that runs have met it so.
    """

    settings: Settings
    steps: int
    allocation: Allocation
    footprint: Footprint
    paces: list[Pace]
    fastest: Forecast | None
    slowest: Forecast | None
    wait_s: float
    is_met: bool

    @property
    def worst_loss_s(self) -> float:
        """Seconds of training that a kill can cost at most."""
        every_steps = self.settings.checkpoint_every_steps
        bounds = [self.settings.checkpoint_every_s]
        if every_steps is not None and self.slowest is not None:
            bounds.append(every_steps * self.slowest.step_ms / 1000)
        return min(bounds)

    def lines(self) -> list[tuple[str, str]]:
        """For people: a word and a sentence."""
        if self.steps == 0:
            return [("training", "all steps are done")]
        told = [("training", self._training()), ("segments", self._segments())]
        told += [
            ("requeue", self._requeue()),
            ("a kill", f"costs at most {duration(self.worst_loss_s)} of training"),
        ]
        kept = f"{self.footprint.num_lattices:,} lattices, a log of {size(self.footprint.log_bytes)}"
        told.append(
            ("leaves", f"{size(self.footprint.total_bytes)} in about {self.footprint.num_files:,} files: {kept}")
        )
        if self.fastest is not None and self.slowest is not None:
            told.append(("done", f"{_span(self.fastest.total_s, self.slowest.total_s)} after its start"))
        return told

    @property
    def summary(self) -> str:
        """The plan in a line, or that its time is unknown."""
        left = f"leaves {size(self.footprint.total_bytes)}"
        if self.fastest is None or self.slowest is None:
            return f"time unknown, `{_MEASURE}` measures it; {left}"
        number = _range(f"{self.fastest.segments:,}", f"{self.slowest.segments:,}")
        segments = f"{number} segment{'' if number == '1' else 's'} of {self.allocation.time}"
        return f"done {_span(self.fastest.total_s, self.slowest.total_s)} after its start, in {segments}; {left}"

    def _training(self) -> str:
        if self.fastest is None or self.slowest is None:
            return f"unknown: `{_MEASURE}` measures it"
        paces = _range(f"{self.fastest.step_ms:.3g}", f"{self.slowest.step_ms:.3g}")
        names = [pace.source for pace in self.paces[:2]] + (
            [f"{len(self.paces) - 2} more"] if len(self.paces) > 2 else []
        )
        device = self.paces[0].device or "an unknown device"
        return (
            f"{_span(self.fastest.train_s, self.slowest.train_s)}: {self.steps:,} steps of {paces} ms, as {', '.join(names)} "
            f"on {device}"
        )

    def _segments(self) -> str:
        if self.fastest is None or self.slowest is None:
            return f"unknown number, of {self.allocation.time} each"
        number = _range(f"{self.fastest.segments:,}", f"{self.slowest.segments:,}")
        return f"{number} of {self.allocation.time}"

    def _requeue(self) -> str:
        start_up_s = self.slowest.start_up_s if self.slowest is not None else START_UP_S
        how = "as runs like it have waited" if self.is_met else "and what the queue takes"
        return f"costs {duration(self.wait_s)} of waiting, {how}, and {start_up_s:.0f} s to start; no step is lost"

    def as_json(self) -> dict[str, Any]:
        """The formula with its terms, and the rest."""
        return {
            "steps": self.steps,
            "paces": [
                {"source": p.source, "device": p.device, "fastest_ms": p.fastest_ms, "slowest_ms": p.slowest_ms}
                for p in self.paces
            ],
            "formula": "segments = 1 + ceil((train_s - first_segment_s) / segment_s); "
            "total_s = train_s + start_up_s * segments + wait_s * (segments - 1)",
            "fastest": self.fastest.as_json() if self.fastest is not None else None,
            "slowest": self.slowest.as_json() if self.slowest is not None else None,
            "wait_s": self.wait_s,
            "wait_is_met": self.is_met,
            "worst_loss_s": self.worst_loss_s,
            "total_bytes": self.footprint.total_bytes,
            "peak_bytes": self.footprint.peak_bytes,
            "num_files": self.footprint.num_files,
            "num_lattices": self.footprint.num_lattices,
        }


def plan_run(
    settings: Settings,
    allocation: Allocation,
    *,
    steps_done: int = 0,
    requeue_s: float | None = None,
    known: Paces | None = None,
) -> RunPlan:
    """The plan of a run that has done so many steps already; `requeue_s` is what this cluster makes a requeued job wait.

    `known` are the paces below its runs directory, which are read where they are not given.
    """
    paces, steps = (known or Paces(settings.runs_dir)).like(settings, allocation), settings.total_steps - steps_done
    met_s = median_wait_s(paces)
    wait_s = met_s if met_s is not None else requeue_s if requeue_s is not None else REQUEUE_S
    start_up_s = max((pace.start_up_s for pace in paces if pace.start_up_s is not None), default=START_UP_S)
    fastest = slowest = None
    if paces:
        ends = (min(pace.fastest_ms for pace in paces), max(pace.slowest_ms for pace in paces))
        fastest, slowest = (forecast(steps, ms, allocation, start_up_s=start_up_s, wait_s=wait_s) for ms in ends)
    left = footprint(settings)
    return RunPlan(settings, steps, allocation, left, paces, fastest, slowest, wait_s, met_s is not None)


@dataclass(frozen=True)
class SweepPlan:
    """What is ahead of a sweep's runs, `parallel` of them at once, in their order; None: as many as Slurm lets."""

    plans: list[RunPlan]
    parallel: int | None

    @property
    def num_unknown(self) -> int:
        """Of how many of them no pace is known."""
        return sum(plan.fastest is None for plan in self.plans)

    @property
    def ends_s(self) -> tuple[float, float] | None:
        """Seconds from the first start to the last end, at the fastest and the slowest paces; None where one is unknown."""
        if self.num_unknown:
            return None
        fastest = [plan.fastest.total_s for plan in self.plans if plan.fastest is not None]
        slowest = [plan.slowest.total_s for plan in self.plans if plan.slowest is not None]
        return self._last_end_s(fastest), self._last_end_s(slowest)

    def _last_end_s(self, lengths_s: list[float]) -> float:
        """Each takes the place that is free first, as in an array with a throttle."""
        places = [0.0] * min(self.parallel or len(lengths_s), len(lengths_s))
        for length_s in lengths_s:
            heapq.heapreplace(places, places[0] + length_s)
        return max(places, default=0.0)

    @property
    def summary(self) -> str:
        """In a line."""
        at_once = f"{self.parallel} at once" if self.parallel else "all at once, if Slurm lets them"
        left = f"leave {size(sum(plan.footprint.total_bytes for plan in self.plans))}"
        if self.ends_s is None:
            return f"{at_once}; time unknown for {self.num_unknown} runs, `{_MEASURE}` measures it; they {left}"
        return f"{at_once}; the last is done {_span(*self.ends_s)} after the first start; they {left}"

    def as_json(self) -> dict[str, Any]:
        """The terms."""
        fastest_s, slowest_s = self.ends_s or (None, None)
        return {
            "num_runs": len(self.plans),
            "parallel": self.parallel,
            "num_unknown": self.num_unknown,
            "fastest_s": fastest_s,
            "slowest_s": slowest_s,
            "total_bytes": sum(plan.footprint.total_bytes for plan in self.plans),
        }


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _span(low_s: float, high_s: float) -> str:
    return _range(duration(low_s), duration(high_s))
