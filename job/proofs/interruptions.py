"""What interrupts a run in the proof of exact resume: signals, and what else a machine does to a process and its files."""

import contextlib
import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from job.config.settings import Settings
from job.errors import EXIT_FINISHED, AaeError
from job.log.reader import parse, read_lines
from job.rundir.directory import RunDir

STOPPED_S = 1.0
_PAGE_BYTES = 4096


@dataclass
class Process:
    """One start of a run; `terminal` is our end of the terminal that it was begun on, None for none."""

    run_dir: RunDir
    printed: Path
    popen: "subprocess.Popen[bytes]"
    terminal: int | None = None

    def to_its_end(self) -> None:
        """Wait for it; raises AaeError if it does not finish the run."""
        try:
            code = self.popen.wait()
        except BaseException:
            self.popen.kill()
            raise
        finally:
            self.hang_up()
        if code != EXIT_FINISHED:
            raise AaeError(
                f"{self.run_dir.path}: a run ended by itself with exit code {code}:\n{self.printed.read_text()}"
            )

    def hang_up(self) -> None:
        """Close its terminal, as when a connection breaks."""
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment in which the commands of `aae-job` read these settings, and no others."""
    values = settings.model_dump(mode="json")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AAE_")}
    return kept | {f"AAE_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def start(settings: Settings, run_dir: RunDir, *, on_terminal: bool = False) -> Process:
    """Start a run as a process of its own, in a session of its own if it is to have a terminal."""
    # Nobody waits for the end of a proof's runs.
    here = {"runs_dir": run_dir.path.parent, "run_name": run_dir.path.name, "on_end": None}
    environment = environment_of(settings.model_copy(update=here))
    printed = run_dir.path.with_suffix(".printed")
    command = [sys.executable, "-P", "-m", "job"]
    if not on_terminal:
        with printed.open("wb") as file:
            popen = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603
        return Process(run_dir, printed, popen)
    printed.write_text("(it was begun on a terminal)\n")
    ours, its = pty.openpty()
    take_terminal = partial(fcntl.ioctl, its, termios.TIOCSCTTY, 0)
    popen = subprocess.Popen(  # noqa: S603
        command, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=take_terminal
    )
    os.close(its)
    return Process(run_dir, printed, popen, ours)


def _signals(*numbers: signal.Signals) -> Callable[[Process], None]:
    def send(process: Process) -> None:
        for number in numbers:
            process.popen.send_signal(number)

    return send


def _stop_and_go(process: Process) -> None:
    process.popen.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED_S)
    process.popen.send_signal(signal.SIGCONT)
    process.popen.send_signal(signal.SIGTERM)


def _lose_page(process: Process) -> None:
    """A power cut: one page of what no sync had brought to disk, or of the newest of several checkpoints, reads as zeros."""
    process.popen.kill()
    process.popen.wait()
    run_dir, steps = process.run_dir, process.run_dir.checkpoint_steps()
    choices = [(run_dir.status_file, 0), (run_dir.events_file, synced_bytes(run_dir))]
    choices += [(run_dir.checkpoint_file(steps[0]), 0)] if len(steps) > 1 else []
    path, start_byte = random.choice(choices)  # noqa: S311
    with contextlib.suppress(FileNotFoundError):
        lose_page(path, start_byte)


def lose_page(path: Path, start_byte: int = 0) -> None:
    """Zeros over a random page of a file, in its part from a byte on; nothing if there is no such part."""
    size = path.stat().st_size
    if size > start_byte:
        first = random.randrange(start_byte, size)  # noqa: S311
        first = max(start_byte, first - first % _PAGE_BYTES)
        with path.open("rb+") as file:
            file.seek(first)
            file.write(bytes(min(_PAGE_BYTES, size - first)))


def _cut_log(process: Process) -> None:
    """A power cut: the end of the log that no sync had brought to disk is gone."""
    process.popen.kill()
    process.popen.wait()
    path = process.run_dir.events_file
    with contextlib.suppress(FileNotFoundError):
        os.truncate(path, random.randint(synced_bytes(process.run_dir), path.stat().st_size))  # noqa: S311


def synced_bytes(run_dir: RunDir) -> int:
    """How much of the log is promised to be on disk: up to the last record that is due before the newest checkpoint."""
    newest = next(iter(run_dir.checkpoint_steps()), 0)
    end = promised = 0
    for line in read_lines(run_dir.events_file):
        end += len(line)
        record = parse(line)
        if newest and record is not None and record["step"] <= newest and record["event"] != "checkpoint":
            promised = end
    return promised


@dataclass(frozen=True)
class Kind:
    """One way to interrupt a process: how often it is drawn, what is done, and whether that needs a terminal."""

    weight: int
    act: Callable[[Process], None]
    needs_terminal: bool = False


KINDS: dict[str, Kind] = {
    "SIGKILL": Kind(8, _signals(signal.SIGKILL)),
    "SIGTERM": Kind(1, _signals(signal.SIGTERM)),
    "Ctrl-C": Kind(1, _signals(signal.SIGINT)),
    "Ctrl-C twice": Kind(1, _signals(signal.SIGINT, signal.SIGINT)),
    "SIGHUP": Kind(1, _signals(signal.SIGHUP)),
    "SIGUSR1": Kind(1, _signals(signal.SIGUSR1)),
    "SIGUSR2": Kind(1, _signals(signal.SIGUSR2)),
    "stop and go": Kind(1, _stop_and_go),
    "hang-up": Kind(1, Process.hang_up, needs_terminal=True),
    "lost page": Kind(2, _lose_page),
    "cut log": Kind(2, _cut_log),
}
