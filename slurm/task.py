"""What submitit pickles: which run to train, in a path and at most a number. Unpickled before anything heavy is loaded."""

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from job.rundir.directory import RunDir


class Task:
    """The job as submitit calls it; light, so that unpickling it takes no time in which a signal could be lost."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Run one segment; returns if the run is finished, else the process ends with the exit code."""
        from job.output import install, leave, wait_for_no_reader
        from slurm.node.segment import run_submitted

        install()
        wait_for_no_reader()
        code = run_submitted(self.find(), os.environ)
        if code != 0:
            leave(code)
        atexit.register(leave, 0)  # submitit writes a file of its own first

    def find(self) -> "Callable[[], RunDir]":
        """What tells the run's directory."""
        from job.rundir.directory import RunDir

        return lambda: RunDir(Path(self.run_dir))


class ElementTask(Task):
    """The job of each element of an array: sweep.json says which run it is, by the array's number there and the task's."""

    def __init__(self, sweep: str, number: int) -> None:
        self.sweep = sweep
        self.number = number

    def find(self) -> "Callable[[], RunDir]":
        """What tells the run's directory, as `element_of`."""
        from slurm.node.element import element_of

        return lambda: element_of(self.sweep, self.number, os.environ)


class CheckTask:
    """The job of `aae-slurm check --on-node`: looks around on the node, and writes down what it finds."""

    def __init__(self, folder: str, nonce: str) -> None:
        self.folder = folder
        self.nonce = nonce

    def __call__(self) -> None:
        """Look; what is found lies in the folder."""
        from job.output import install, wait_for_no_reader
        from slurm.node.look import look

        install()
        wait_for_no_reader()
        look(self.folder, self.nonce, os.environ)
