"""The proof of exact resume: one run goes through, others are interrupted at random, and what they leave must be equal."""

import hashlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from job.config.settings import Settings
from job.log.events import EXACT
from job.log.reader import merged_records, parse, read_lines
from job.proofs.interruptions import KINDS, start
from job.rundir.directory import RunDir


@dataclass(frozen=True)
class Traces:
    """What must be byte-equal however a run was interrupted: digests of its files, and the losses of its log."""

    weights: str
    lattices: dict[str, str]
    final_lattice: str
    steps: list[list[Any]]

    @classmethod
    def of(cls, run_dir: RunDir) -> "Traces":
        """What a finished run has left behind; raises OSError if it is not whole."""
        records = merged_records(run_dir.events_file, "step")
        return cls(
            weights=_digest(run_dir.final_weights),
            lattices={path.name: _digest(path) for path in sorted(run_dir.lattices.glob("*.png"))},
            final_lattice=_digest(run_dir.final_lattice),
            steps=[[record[name] for name in EXACT] for record in records],
        )

    def differences(self, other: "Traces") -> list[str]:
        """In words, what differs; empty if nothing does."""
        found = []
        if self.weights != other.weights:
            found.append("final/weights.safetensors differs")
        if self.final_lattice != other.final_lattice:
            found.append("final/lattice.png differs")
        names = sorted(self.lattices.keys() | other.lattices.keys())
        found += [f"lattices/{n} differs" for n in names if self.lattices.get(n) != other.lattices.get(n)]
        if self.steps != other.steps:
            pairs = zip(self.steps, other.steps, strict=False)
            first = next((a[0] for a, b in pairs if a != b), "the end")
            found.append(f"{len(self.steps)} and {len(other.steps)} step records, the first difference at step {first}")
        return found


@dataclass
class Interruptions:
    """What one kind of interruption has cost, one number each."""

    times: int = 0
    steps_lost: list[int] = field(default_factory=list)
    seconds_lost: list[float] = field(default_factory=list)
    seconds_to_resume: list[float] = field(default_factory=list)


@dataclass
class Proof:
    """The outcome: what each kind has cost, how much was compared, and every difference found."""

    kinds: dict[str, Interruptions]
    compared: list[Traces]
    differences: list[str]


def prove(settings: Settings, kills: int, folder: Path, tell: Callable[[str], None]) -> Proof:
    """Run once through, then as often as it takes for `kills` interruptions; raises AaeError if a run fails by itself.

    Each run is a process of its own in a run directory below `folder`.
    """
    whole = RunDir(folder / "whole")
    began = time.monotonic()
    start(settings, whole).to_its_end()
    training_s = next(r["elapsed_s"] for r in _records(whole) if r["event"] == "finished")
    startup_s = max(0.5, time.monotonic() - began - training_s)
    reference = Traces.of(whole)
    tell(
        f"uninterrupted: {settings.total_steps:,} steps, {training_s:.0f} s of training, {startup_s:.1f} s to start and end"
    )
    proof = Proof({name: Interruptions() for name in KINDS}, [reference], [])
    done = round_number = 0
    while done < kills:
        round_number += 1
        run_dir = RunDir(folder / f"interrupted-{round_number}")
        here = min(kills - done, 50)  # in one run; the next ones go to another
        made = list(_interrupted(settings, run_dir, here, startup_s, 2 * training_s / here, tell, done))
        start(settings, run_dir).to_its_end()
        done += len(made)
        _account(proof, run_dir, made)
        traces = Traces.of(run_dir)
        proof.compared.append(traces)
        found = reference.differences(traces)
        proof.differences += [f"{run_dir.path}: {difference}" for difference in found]
        tell(f"run {round_number} finished after {len(made)} interruptions: {'DIFFERENT' if found else 'equal'}")
    return proof


@dataclass(frozen=True)
class _Interruption:
    """One that was made: how, when (seconds since the epoch), and of which process."""

    kind: str
    time: float
    pid: int


def _interrupted(
    settings: Settings,
    run_dir: RunDir,
    kills: int,
    startup_s: float,
    training_s: float,
    tell: Callable[[str], None],
    done: int,
) -> Iterator[_Interruption]:
    """Start and interrupt at random moments, from the process's first to `training_s` of training."""
    names, weights = list(KINDS), [kind.weight for kind in KINDS.values()]
    for number in range(1, kills + 1):
        name = random.choices(names, weights)[0]  # noqa: S311
        process = start(settings, run_dir, on_terminal=KINDS[name].needs_terminal)
        try:
            process.popen.wait(random.uniform(0, startup_s + training_s))  # noqa: S311
        except subprocess.TimeoutExpired:
            pass
        except BaseException:
            process.popen.kill()
            raise
        else:
            process.to_its_end()  # it was faster, or has failed
            return
        KINDS[name].act(process)
        at = time.time()
        process.popen.wait()
        process.hang_up()
        step = next((r["step"] for r in reversed(list(_records(run_dir)))), 0)
        tell(f"{done + number:>4}  {name:<13} at about step {step:,} of {settings.total_steps:,}")
        yield _Interruption(name, at, process.popen.pid)


def _account(proof: Proof, run_dir: RunDir, made: list[_Interruption]) -> None:
    """Charge what each resume found lost to the interruption of the process that had trained before it."""
    for one in made:
        proof.kinds[one.kind].times += 1
    starts = [record for record in _records(run_dir) if record["event"] in ("started", "resumed")]
    for before, record in pairwise(starts):
        culprit = next(one for one in made if one.pid == before["pid"])
        cost = proof.kinds[culprit.kind]
        cost.steps_lost.append(record["steps_lost"])
        cost.seconds_lost.append(record["seconds_lost"])
        resumed_at = datetime.fromisoformat(record["time"]).timestamp()
        if not any(culprit.time < one.time < resumed_at for one in made):
            cost.seconds_to_resume.append(resumed_at - culprit.time)


def table(proof: Proof) -> list[str]:
    """The costs by kind, and what was compared, as lines of text."""
    lines = [f"{'interruption':<14}{'times':>6}{'steps lost':>16}{'seconds lost':>16}{'back within':>14}"]
    for name, cost in proof.kinds.items():
        if cost.times:
            # A process that had not begun to train had nothing to lose.
            steps = f"{max(cost.steps_lost):,} at most" if cost.steps_lost else "-"
            seconds = f"{max(cost.seconds_lost):.1f} at most" if cost.seconds_lost else "-"
            back = f"{max(cost.seconds_to_resume):.1f} s" if cost.seconds_to_resume else "-"
            lines.append(f"{name:<14}{cost.times:>6}{steps:>16}{seconds:>16}{back:>14}")
    reference, *others = proof.compared
    lines.append(
        f"compared: weights, lattices ({len(reference.lattices) + 1}) and step records ({len(reference.steps)}) "
        f"of {len(others)} interrupted run{'' if len(others) == 1 else 's'} with those of an uninterrupted one"
    )
    return lines + [f"DIFFERENT  {difference}" for difference in proof.differences]


def _records(run_dir: RunDir) -> Iterator[Mapping[str, Any]]:
    return (record for line in read_lines(run_dir.events_file) if (record := parse(line)) is not None)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
