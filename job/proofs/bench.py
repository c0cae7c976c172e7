"""`aae-job bench`: the lecture's loop, this project's and the hardware's floor, side by side on this machine.

Each mode has a process of its own, so that none profits from another's memory. On a CPU they take turns, and ratios are of turns
that follow each other, so that a machine that slows down slows both sides of a ratio; on a GPU, which processes would share, one is
measured after the other. Each mode is measured fresh, with new weights, and aged, as after some thousand steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from job.checkpoints.checkpoint import read_checkpoint
from job.config.settings import Settings
from job.errors import AaeError, CheckpointError, UsageError
from job.machine import cpu_model, versions
from job.proofs.bench_beside import Beside, measure_beside, measure_ends
from job.proofs.bench_modes import Mode, State, aged_state, serve
from job.proofs.children import alone, context
from job.rundir.directory import RunDir
from job.training.device import choose_device, device_name
from job.training.graph import WARM_UP_STEPS

TURN_S = 1.0  # about how long a turn takes
AGE_STEPS = 2500  # by then, Adam's moments of most weights that get no gradient any more are subnormal or zero


@dataclass(frozen=True)
class Measured:
    """A mode and the milliseconds a step of each of its turns, with new weights and with aged ones."""

    mode: Mode
    fresh_ms: list[float]
    aged_ms: list[float]

    def times_faster_than(self, other: "Measured", *, aged: bool) -> float:
        """The median over the turns of how often this mode's step fits into the other's."""
        pairs = (
            zip(other.aged_ms, self.aged_ms, strict=True) if aged else zip(other.fresh_ms, self.fresh_ms, strict=True)
        )
        return median(theirs / ours for theirs, ours in pairs)

    @property
    def aged_by_fresh(self) -> float:
        """The median over the turns of how much longer an aged step takes."""
        return median(aged / fresh for aged, fresh in zip(self.aged_ms, self.fresh_ms, strict=True))


@dataclass(frozen=True)
class Bench:
    """The measurements and where they were made; `ends_s` are from the command to the first step, and from the last to the end.

    In short nothing is `beside`, and `ends_s` is None.
    """

    settings: Settings
    device: str
    measured: list[Measured]
    beside: list[Beside]
    ends_s: tuple[float, float] | None

    @property
    def lecture(self) -> Measured:
        """What the others are compared with."""
        return next(m for m in self.measured if m.mode.kind == "lecture")

    @property
    def of_run(self) -> Measured:
        """This project's mode in which a run at these settings trains."""
        ours = [m for m in self.measured if m.mode.kind == "ours"]
        graph = self.settings.cuda_graph is not False
        return max(ours, key=lambda m: (m.mode.precision == self.settings.precision, m.mode.cuda_graph == graph))

    def floor(self, mode: Mode) -> Measured | None:
        """The products that a mode of this project is compared with."""
        floors = (m for m in self.measured if m.mode.kind == "floor" and m.mode.precision == mode.precision)
        return next(floors, None) if mode.kind == "ours" else None


def modes_for(device: torch.device, settings: Settings, *, short: bool) -> list[Mode]:
    """What there is to measure on a device; in short, the lecture's loop and that in which a run at these settings trains."""
    if short:
        graph = device.type == "cuda" and settings.cuda_graph is not False
        return [Mode("lecture"), Mode("ours", settings.precision, graph)]
    precisions = ("float32", "tf32", "bfloat16") if device.type == "cuda" else ("float32", "bfloat16")
    graphs = (False, True) if device.type == "cuda" else (False,)
    ours = [Mode("ours", precision, graph) for precision in precisions for graph in graphs]
    return [Mode("lecture"), Mode("notebook"), *ours, *(Mode("floor", precision) for precision in precisions)]


def measure(
    settings: Settings,
    num_turns: int,
    folder: Path,
    tell: Callable[[str], None],
    aged_run: RunDir | None = None,
    *,
    short: bool = False,
) -> Bench:
    """Measure every mode in so many turns and, unless in short, the work beside the steps in run directories below `folder`.

    `aged_run` is a run whose newest checkpoint is the aged state, None for one that is made here. Raises AaeError if one of the
    processes ends, UsageError if there is no such checkpoint.
    """
    device = choose_device(settings.device)
    aged = _aged(settings, device, folder, tell) if aged_run is None else _state_of(aged_run, settings)
    players: list[_Player] = []
    modes = modes_for(device, settings, short=short)
    at_once = len(modes) if device.type == "cpu" else 1
    try:
        for first in range(0, len(modes), at_once):
            playing = []
            for mode in modes[first : first + at_once]:
                tell(f"starting: {mode.name}")
                playing.append(_Player(mode, settings, device, aged))
                players.append(playing[-1])
            for turn in range(num_turns):
                tell(f"turn {turn + 1} of {num_turns}")
                for player in playing:
                    player.take_turn()
            for player in playing:
                player.end()
    finally:
        for player in players:
            player.end()
    measured = [Measured(player.mode, player.fresh_ms, player.aged_ms) for player in players]
    result = Bench(settings, _name(device), measured, [], None)
    beside: list[Beside] = []
    if not short:
        tell("the work beside the steps")
        beside = alone(measure_beside, settings, folder, median(result.of_run.aged_ms))
    ends_s = None if short else measure_ends(settings, folder)
    return Bench(settings, result.device, measured, beside, ends_s)


def _name(device: torch.device) -> str:
    name: str = alone(device_name, device) if device.type == "cuda" else device_name(device)
    return name


def _aged(settings: Settings, device: torch.device, folder: Path, tell: Callable[[str], None]) -> State:
    tell(f"ageing: {AGE_STEPS:,} steps on batches of ten")
    path = folder / "aged.pt"
    alone(aged_state, settings, device.type, AGE_STEPS, path)
    state: State = torch.load(path, weights_only=True, map_location="cpu")
    return state


def _state_of(run_dir: RunDir, settings: Settings) -> State:
    for step in run_dir.checkpoint_steps():
        try:
            state = read_checkpoint(run_dir.checkpoint_file(step))
        except (CheckpointError, OSError):
            continue
        for name in ("latent_dim", "hidden_dim"):
            there, here = state["settings"][name], getattr(settings, name)
            if there != here:
                raise UsageError(
                    f"{run_dir.path} has AAE_{name.upper()}={there}, this bench {here}: set it so here too"
                )
        return state
    raise UsageError(f"{run_dir.path} has no checkpoint that can be read: name a run that has trained")


class _Player:
    """A mode's process, warmed up."""

    def __init__(self, mode: Mode, settings: Settings, device: torch.device, aged: State) -> None:
        self.mode = mode
        self.fresh_ms: list[float] = []
        self.aged_ms: list[float] = []
        self._connection, theirs = context().Pipe()
        arguments = (mode, settings, device.type, aged, theirs)
        self._process = context().Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        for is_aged in (True, False):
            self._run(WARM_UP_STEPS + 2 if mode.cuda_graph else 1, aged=is_aged)  # loads, records, touches memory
        num_steps = 1
        while (seconds := self._run(num_steps, aged=False)) < 0.3 * TURN_S:
            num_steps *= 2
        self._num_steps = max(1, round(num_steps * TURN_S / seconds))

    def take_turn(self) -> None:
        for ms, aged in ((self.fresh_ms, False), (self.aged_ms, True)):
            ms.append(self._run(self._num_steps, aged=aged) / self._num_steps * 1000)

    def end(self) -> None:
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join(10)
        self._process.kill()
        self._process.join()

    def _run(self, num_steps: int, *, aged: bool) -> float:
        try:
            self._connection.send((num_steps, aged))
            seconds: float = self._connection.recv()
        except (EOFError, OSError) as error:
            raise AaeError(f"bench: the process of '{self.mode.name}' has ended; what it said is above") from error
        return seconds


def table(result: Bench) -> list[str]:
    """The measurements for people."""
    settings, run = result.settings, result.of_run
    lines = [
        f"{result.device} ({cpu_model()}), {settings.num_threads} thread{'s' * (settings.num_threads != 1)}, "
        f"torch {torch.__version__}; {settings.dataset}, batch {settings.batch_size}, {settings.hidden_dim} hidden units",
        "",
        f"{'milliseconds a step':40}{'fresh':>9}{'aged':>9}{'aged/fresh':>12}{'x lecture':>11}{'aged':>7}{'x floor':>9}{'aged':>7}",
    ]
    for measured in result.measured:
        floor, lecture = result.floor(measured.mode), result.lecture
        lines.append(
            f"{measured.mode.name:40}{median(measured.fresh_ms):9.2f}{median(measured.aged_ms):9.2f}{measured.aged_by_fresh:12.2f}"
            + "".join(
                f"{measured.times_faster_than(lecture, aged=aged):{width}.2f}"
                for aged, width in ((False, 11), (True, 7))
            )
            + (
                f"{floor.times_faster_than(measured, aged=False):9.2f}{floor.times_faster_than(measured, aged=True):7.2f}"
                if floor
                else ""
            )
        )
    step_ms, total = median(run.aged_ms), settings.total_steps
    share = sum(row.share(step_ms, total) for row in result.beside)
    of_run = f"a run of {total:,} steps"
    told = [
        *lines,
        "",
        "aged: as after some thousand steps; x lecture: how many of its steps fit into one of the lecture's; x floor: how many",
        f"times its matrix products alone. Fastest here: {fastest(result).mode.name}",
    ]
    if result.beside:
        told += [
            "",
            f"{'beside the steps':40}{'ms':>9}{'times':>9}{'share':>12}   of {of_run}",
            *(f"{r.name:40}{r.ms:9.2f}{r.times:9.1f}{r.share(step_ms, total):12.2%}" for r in result.beside),
            f"{'together':58}{share:12.2%}",
        ]
    if result.ends_s is not None:
        first, last = result.ends_s
        told += ["", f"from the command to the first step {first:.1f} s, from the last step to the end {last:.1f} s"]
    return told


def fastest(result: Bench) -> Measured:
    """This project's mode whose aged step is the shortest."""
    return min((m for m in result.measured if m.mode.kind == "ours"), key=lambda m: median(m.aged_ms))


def as_json(result: Bench) -> dict[str, Any]:
    """The measurements for programs."""
    modes = []
    for measured in result.measured:
        mode, floor, lecture = measured.mode, result.floor(measured.mode), result.lecture
        found: dict[str, Any] = {"kind": mode.kind, "precision": mode.precision, "cuda_graph": mode.cuda_graph}
        for name, aged in (("fresh", False), ("aged", True)):
            ms = measured.aged_ms if aged else measured.fresh_ms
            found[name] = {
                "step_ms": ms,
                "step_ms_median": median(ms),
                "steps_per_s": 1000 / median(ms),
                "times_lecture": measured.times_faster_than(lecture, aged=aged),
                "times_floor": floor.times_faster_than(measured, aged=aged) if floor else None,
            }
        modes.append(found | {"aged_by_fresh": measured.aged_by_fresh})
    step_ms, total = median(result.of_run.aged_ms), result.settings.total_steps
    first_s, last_s = result.ends_s or (None, None)
    return {
        "device": result.device,
        "processor": cpu_model(),
        "num_threads": result.settings.num_threads,
        "versions": versions(),
        "settings": result.settings.model_dump(mode="json"),
        "modes": modes,
        "fastest": {"precision": fastest(result).mode.precision, "cuda_graph": fastest(result).mode.cuda_graph},
        "beside": [
            {"name": r.name, "ms": r.ms, "times": r.times, "share": r.share(step_ms, total)} for r in result.beside
        ],
        "seconds_to_first_step": first_s,
        "seconds_from_last_step": last_s,
    }
