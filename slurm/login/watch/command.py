"""`aae-slurm watch`: looks at a run, or a sweep's runs, every second until they end; Ctrl-C leaves them alone."""

import os
import signal
import sys
import time
from types import FrameType

from job.commandline import Parser
from job.output import rest
from job.rundir.find import Found, find_runs
from slurm.login.watch.course import Course
from slurm.login.watch.look import Look, Watched
from slurm.login.watch.plain import Plain
from slurm.login.watch.queue import RareQueue
from slurm.login.watch.words import following

LOOK_EVERY_S = 1.0
LOOKING_S = 0.3  # of many runs as many are looked at as can be within this
FIRST_ANSWER_S = 3.0  # how long plain lines wait for the scheduler's first answer: what they have said stands


class _Leave(BaseException):
    """SIGTERM or SIGHUP has come."""


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm watch",
        "Shows how a run goes until it ends, over all its segments; in plain lines where the output is no terminal.\n"
        "It only looks: Ctrl-C leaves the run alone. Exit code 0: it has ended well; 1: it has failed, is lost, or waits\n"
        "without a job; 2: no such run; 130: Ctrl-C.",
        "aae-slurm watch digits-2d-seed0-44136fa3",
    )
    parser.add_argument(
        "run",
        type=find_runs,
        metavar="RUN",
        help="a run's path, its name under AAE_RUNS_DIR, or the name of a sweep there",
    )
    found: Found = parser.parse_args(arguments).run
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        is_drawn = sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        looks = _draw(found) if is_drawn else _print(found)
    except _Leave as leave:
        return 128 + int(leave.args[0])
    print("\n".join(["next:", *(f"  {line}" for line in following(looks, found.sweep))]))
    return 1 if any(look.needs_person for look in looks) else 0


def _leave(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise _Leave(number)


def _draw(found: Found) -> list[Look]:
    from slurm.login.watch.screen import Screen  # rich is for terminals

    runs = _Runs(found)
    screen = Screen(found.sweep)
    try:
        with screen:
            while True:
                looks = runs.look()
                screen.draw(looks)
                if runs.have_ended:
                    break
                screen.rest(LOOK_EVERY_S)
    except KeyboardInterrupt:
        screen.leave_standing(2)
        print(f"left; what it showed goes on: {following(runs.looks, found.sweep)[0]}")
        raise
    screen.leave_standing(1 + len(following(looks, found.sweep)))
    return looks


def _print(found: Found) -> list[Look]:
    runs = _Runs(found)
    plain = Plain(found.sweep)
    print(f"run   {found.runs[0].path}" if found.sweep is None else f"sweep  {found.sweep}: {len(found.runs)} runs")
    runs.look()
    runs.queue.wait(FIRST_ANSWER_S)
    while True:
        looks = runs.look()
        plain.draw(looks, is_last=runs.have_ended)
        if runs.have_ended:
            return looks
        rest(LOOK_EVERY_S)


class _Runs:
    """The runs that are watched, and the one queue that is asked for all of them."""

    def __init__(self, found: Found) -> None:
        thin = (2**15, 15) if found.sweep is not None else (2**18, 60)
        self._watched = [Watched(run_dir, Course(run_dir, *thin)) for run_dir in found.runs]
        self._next = 0
        self.queue = RareQueue()

    @property
    def looks(self) -> list[Look]:
        """The runs as they were seen last."""
        return [watched.look for watched in self._watched]

    @property
    def have_ended(self) -> bool:
        """Whether nothing more is to be expected of any."""
        return all(look.ended for look in self.looks)

    def look(self) -> list[Look]:
        """Look at those that have not ended, or as many of them as there is time for, and ask the scheduler if it is time to."""
        until_s = time.monotonic() + LOOKING_S
        count = len(self._watched)
        for watched in self._watched:
            watched.look.new = []
        for _ in range(count):
            watched = self._watched[self._next]
            if not watched.look.ended:
                watched.again(self.queue)
            self._next = (self._next + 1) % count
            if time.monotonic() > until_s:
                break
        alive = [watched for watched in self._watched if not watched.look.ended]
        if alive:
            self.queue.ask_if_due([watched.look.run_dir for watched in alive], alive[0].why if count == 1 else None)
        return self.looks
