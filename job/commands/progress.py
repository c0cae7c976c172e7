"""What a person sees of a run while it trains: a progress bar on a terminal, else a plain line now and then."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from job.log.words import readings, step_line
from job.output import as_it_stands

if TYPE_CHECKING:
    from job.training.trainer import Trainer

PLAIN_EVERY_S = 10.0
BAR_FROM_COLUMNS = 120  # narrower terminals show numbers only
BAR_COLUMNS = 41
OTHER_COLUMNS = 26  # steps and time left


class Display:
    """A context manager around training; hand `observe` to the trainer."""

    def __init__(self, trainer: "Trainer") -> None:
        total_steps = trainer.settings.total_steps
        self._console = Console(
            file=as_it_stands(),
            force_terminal=sys.stdout.isatty(),  # FORCE_COLOR, say, makes no terminal of a file
            highlight=False,
            soft_wrap=True,
        )
        self._shows_bar = self._console.is_terminal and not self._console.is_dumb_terminal
        self._total_steps = total_steps
        self._seen = trainer.last_record
        self._next_s = 0.0
        self._bar = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            *([BarColumn()] if self._console.width >= BAR_FROM_COLUMNS else []),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._shows_bar,
        )
        self._task = self._bar.add_task("", total=total_steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def observe(self, trainer: "Trainer") -> None:
        """Show how training goes; called after every step."""
        if self._shows_bar:
            room = self._console.width - OTHER_COLUMNS - (BAR_COLUMNS if self._console.width >= BAR_FROM_COLUMNS else 0)
            self._bar.update(self._task, completed=trainer.step, description=readings(trainer.last_record, room))
        elif trainer.last_record is not self._seen:
            self._seen = trainer.last_record
            if time.monotonic() >= self._next_s or trainer.step == self._total_steps:
                self._next_s = time.monotonic() + PLAIN_EVERY_S
                self._console.print(step_line(trainer.step, self._total_steps, trainer.last_record), markup=False)
