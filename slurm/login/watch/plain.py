"""A watch where nothing can be drawn: a line for what has changed, and for how training goes every ten seconds."""

import time

from job.commandline import clock
from job.log.words import news, step_line
from slurm.login.watch.look import Look
from slurm.login.watch.words import counts, end_words, moment, segment_words, state_words

STEPS_EVERY_S = 10.0  # as the job itself prints them
COUNTS_EVERY_S = 60.0  # of a sweep


class Plain:
    """Prints what is new at each look; of a sweep also the run's name, but no steps: its runs' states, events, and counts."""

    def __init__(self, sweep: str | None) -> None:
        self._sweep = sweep
        self._told: dict[str, object] = {}
        self._step: dict[str, object] | None = None
        self._next_s = 0.0

    def draw(self, looks: list[Look], *, is_last: bool = False) -> None:
        """Tell what has changed since the last time."""
        if is_last and self._sweep is None:
            self._tell_step(looks[0], is_last)
        for look in looks:
            self._tell(look)
        if self._sweep is not None:
            self._count(looks, is_last)
        else:
            self._tell_step(looks[0], is_last)

    def _tell(self, look: Look) -> None:
        name = f"{look.name}: " if self._sweep is not None else ""
        for record in look.new:
            if (words := news(record)) is not None:
                print(f"{moment(record['time'])} {name}{words}")
        if look.shown is None and look.trouble is None:
            return
        shown = look.shown
        key = (
            look.state,
            look.trouble,
            look.note,
            look.ended,
            *((shown.status.segment, shown.job_id) if shown else ()),
        )
        if self._told.get(look.name) != key:
            self._told[look.name] = key
            job = f", job {shown.job_id}" if shown is not None and shown.job_id else ""
            end = f", end {end_words(look)}" if look.state == "running" else ""
            segment = f", segment {segment_words(look)}" if look.state in ("running", "waiting") else ""
            print(f"{clock(time.time())} {name}{look.state}{job}{segment}{end}: {state_words(look)}")

    def _tell_step(self, look: Look, is_last: bool) -> None:
        record, shown = look.course.step, look.shown
        if not record or record is self._step or shown is None or (time.monotonic() < self._next_s and not is_last):
            return
        self._step, self._next_s = record, time.monotonic() + STEPS_EVERY_S
        print(step_line(record["step"], shown.status.total_steps, record))

    def _count(self, looks: list[Look], is_last: bool) -> None:
        words = counts(looks)
        if words != self._told.get("") and (time.monotonic() >= self._next_s or is_last):
            self._told[""], self._next_s = words, time.monotonic() + COUNTS_EVERY_S
            print(f"{clock(time.time())} {self._sweep}: {words}")
