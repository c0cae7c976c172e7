"""What a person sees of a run while it trains: a progress bar on a terminal, else a plain line now and then."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from job.training.trainer import Trainer

PLAIN_EVERY_S = 10.0


class Display:
    """A context manager around training; hand `observe` to the trainer."""

    def __init__(self, trainer: "Trainer") -> None:
        total_steps = trainer.settings.total_steps
        self._console = Console(highlight=False, soft_wrap=True)
        self._total_steps = total_steps
        self._seen = trainer.last_record
        self._next_s = 0.0
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def observe(self, trainer: "Trainer") -> None:
        """Show how training goes; called after every step."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=trainer.step, description=_losses(trainer))
        elif trainer.last_record is not self._seen:
            self._seen = trainer.last_record
            if time.monotonic() >= self._next_s or trainer.step == self._total_steps:
                self._next_s = time.monotonic() + PLAIN_EVERY_S
                self._console.print(f"step {trainer.step:,}/{self._total_steps:,}  {_losses(trainer)}", markup=False)


def _losses(trainer: "Trainer") -> str:
    record = trainer.last_record
    if not record:
        return "before the first log record"
    return (
        f"reconstruction {record['reconstruction_loss']:.4f}  "
        f"discriminator {record['discriminator_loss']:.3f}  generator {record['generator_loss']:.3f}  "
        f"D accuracy {record['d_accuracy']:.2f}  {record['images_per_s']:,.0f} images/s"
    )
