"""`aae-job bench`: the lecture's loop, this project's and the hardware's floor, side by side on this machine.

Each mode has a process of its own, so that none profits from another's memory; they take turns, and ratios are of turns
that follow each other, so that a machine that slows down slows both sides of a ratio.
"""

import multiprocessing
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from job.config.settings import Settings
from job.errors import AaeError
from job.machine import versions
from job.proofs.bench_modes import Mode, serve
from job.training.device import choose_device, device_name

TURN_S = 1.0  # about how long a turn takes


@dataclass(frozen=True)
class Measured:
    """A mode and the milliseconds a step of each of its turns."""

    mode: Mode
    step_ms: list[float]

    def times_faster_than(self, other: "Measured") -> float:
        """The median over the turns of how often this mode's step fits into the other's."""
        return median(theirs / ours for theirs, ours in zip(other.step_ms, self.step_ms, strict=True))


@dataclass(frozen=True)
class Bench:
    """The measurements and where they were made."""

    settings: Settings
    device: str
    measured: list[Measured]

    @property
    def lecture(self) -> Measured:
        """What the others are compared with."""
        return next(m for m in self.measured if m.mode.kind == "lecture")

    def floor(self, mode: Mode) -> Measured | None:
        """The products that a mode of this project is compared with."""
        floors = (m for m in self.measured if m.mode.kind == "floor" and m.mode.precision == mode.precision)
        return next(floors, None) if mode.kind == "ours" else None


def modes_for(device: torch.device) -> list[Mode]:
    """What there is to measure on a device."""
    precisions = ("float32", "tf32", "bfloat16") if device.type == "cuda" else ("float32", "bfloat16")
    graphs = (False, True) if device.type == "cuda" else (False,)
    ours = [Mode("ours", precision, graph) for precision in precisions for graph in graphs]
    return [Mode("lecture"), Mode("notebook"), *ours, *(Mode("floor", precision) for precision in precisions)]


def measure(settings: Settings, num_turns: int, tell: Callable[[str], None]) -> Bench:
    """Measure every mode in so many turns; raises AaeError if one of the processes ends."""
    device = choose_device(settings.device)
    players = []
    try:
        for mode in modes_for(device):
            tell(f"starting: {mode.name}")
            players.append(_Player(mode, settings, device))
        for turn in range(num_turns):
            tell(f"turn {turn + 1} of {num_turns}")
            for player in players:
                player.take_turn()
    finally:
        for player in players:
            player.end()
    return Bench(settings, device_name(device), [Measured(player.mode, player.step_ms) for player in players])


class _Player:
    """A mode's process, warmed up."""

    def __init__(self, mode: Mode, settings: Settings, device: torch.device) -> None:
        self.mode = mode
        self.step_ms: list[float] = []
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(mode, settings, device.type, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._run(1)  # loads, compiles, touches memory
        num_steps = 4
        while (seconds := self._run(num_steps)) < 0.3 * TURN_S:
            num_steps *= 2
        self._num_steps = max(1, round(num_steps * TURN_S / seconds))

    def take_turn(self) -> None:
        self.step_ms.append(self._run(self._num_steps) / self._num_steps * 1000)

    def end(self) -> None:
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join(10)
        self._process.kill()

    def _run(self, num_steps: int) -> float:
        try:
            self._connection.send(num_steps)
            seconds: float = self._connection.recv()
        except (EOFError, OSError) as error:
            raise AaeError(f"bench: the process of '{self.mode.name}' has ended; what it said is above") from error
        return seconds


def table(result: Bench) -> list[str]:
    """The measurements for people."""
    settings = result.settings
    lines = [
        f"{result.device} ({_processor()}), {settings.num_threads} threads, torch {torch.__version__}; "
        f"{settings.dataset}, batch {settings.batch_size}, {settings.hidden_dim} hidden units",
        "",
        f"{'':44}{'steps/s':>9}{'ms a step':>11}{'quartiles':>20}{'x lecture':>11}{'x floor':>9}",
    ]
    for measured in result.measured:
        step_ms, floor = median(measured.step_ms), result.floor(measured.mode)
        low, high = _quartiles(measured.step_ms)
        lines.append(
            f"{measured.mode.name:44}{1000 / step_ms:9.1f}{step_ms:11.2f}{f'{low:.2f} - {high:.2f}':>20}"
            f"{measured.times_faster_than(result.lecture):11.2f}"
            + (f"{floor.times_faster_than(measured):9.2f}" if floor else "")
        )
    return [
        *lines,
        "",
        "x lecture: how many of its steps fit into one of the lecture's; x floor: how many times its matrix products alone",
    ]


def as_json(result: Bench) -> dict[str, Any]:
    """The measurements for programs."""
    modes = []
    for measured in result.measured:
        mode, floor = measured.mode, result.floor(measured.mode)
        modes.append(
            {
                "kind": mode.kind,
                "precision": mode.precision,
                "cuda_graph": mode.cuda_graph,
                "step_ms": measured.step_ms,
                "step_ms_median": median(measured.step_ms),
                "steps_per_s": 1000 / median(measured.step_ms),
                "times_lecture": measured.times_faster_than(result.lecture),
                "times_floor": floor.times_faster_than(measured) if floor else None,
            }
        )
    return {
        "device": result.device,
        "processor": _processor(),
        "num_threads": result.settings.num_threads,
        "versions": versions(),
        "settings": result.settings.model_dump(mode="json"),
        "modes": modes,
    }


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
