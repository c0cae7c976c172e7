"""AAE_ON_END: the user's own command, run once for each end of a run after which nothing more comes by itself.

An end is known by the segment that wrote it. Its mark is made before the command is started, so that a second process of the
same start, or a later start that finds the run ended, does not repeat it.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from job.config.settings import OF_AN_END
from job.config.settings_file import read_record
from job.errors import AaeError, TakenOverError, UsageError
from job.log.writer import EventLog
from job.output import escaped
from job.rundir.directory import RunDir, create_exclusively
from job.rundir.outbox import Outbox
from job.rundir.status import Status

LIMIT_S = 60.0
SAID_AFTER_S = 3.0
POLL_S = 0.1
REAP_S = 1.0
MOST_CHARACTERS = 10_000  # of a verdict: an environment takes no more than 128 KiB in one variable


def tell_of_end(
    run_dir: RunDir,
    status: Status,
    command: str | None,
    say: Callable[[str], None],
    *,
    stays: bool = False,
    is_found: bool = False,
) -> None:
    """Run the command, None for none, if the end that a segment has written is `finished` or `failed`, or one in which it `stays`.

    Nothing that the command does changes the end; its failure is a `warning`. Of an end whose mark cannot be made whoever has
    written it tells all the same, rather twice than never; who has only found it (`is_found`) does not.
    """
    if command is None or not (stays or status.state in ("finished", "failed")):
        return
    if not _is_first(run_dir, status.segment, is_found=is_found):
        return
    told = (str(run_dir.path), status.state, escaped(status.verdict or "")[:MOST_CHARACTERS])
    failure = _failure_of(command, dict(zip(OF_AN_END, told, strict=True)), say)
    if failure is None:
        return
    message = f"AAE_ON_END {failure}: it may be that nobody was told that the run is {status.state}"
    say(f"warning: {message}")
    with contextlib.suppress(OSError, AaeError):
        outbox = Outbox(run_dir)
        EventLog(run_dir, status.segment, outbox).write("warning", step=status.step, reason="on_end", message=message)
        outbox.close()


def recorded_command(run_dir: RunDir) -> str | None:
    """The command as settings.json has it; None for none, also where that cannot be read."""
    with contextlib.suppress(OSError, UsageError):
        record = read_record(run_dir)
        command = record.settings.get("on_end") if record is not None else None
        return command if isinstance(command, str) else None
    return None


def _is_first(run_dir: RunDir, segment: int, *, is_found: bool) -> bool:
    try:
        run_dir.fence()
        create_exclusively(run_dir.told_mark(segment), b"")  # empty: a full disk takes a name where it takes no byte
    except (FileExistsError, TakenOverError):
        return False
    except OSError:
        return not is_found
    return True


def _failure_of(command: str, variables: dict[str, str], say: Callable[[str], None]) -> str | None:
    """Run a command to the end of all that it has started, or end that; returns what went wrong, None if nothing has."""
    print(end="", flush=True)  # what was said before comes before what it prints
    with _noting_interrupts() as interrupts:
        try:
            # Not subprocess: signals that this process ignores would stay ignored, and in a process with torch's threads
            # nothing of Python's may run between fork and exec.
            group = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", command],
                {**os.environ, **variables},
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setsid=True,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        except (OSError, ValueError) as error:
            return f"could not be started ({error})"
        code = _code_of(group, lambda: bool(interrupts), say)
    if code is None:
        return "was ended by Ctrl-C" if interrupts else f"was ended after {LIMIT_S:.0f} s"
    if code < 0:
        return f"was ended by {next((number.name for number in signal.Signals if number == -code), f'signal {-code}')}"
    return f"ended with exit code {code}" if code else None


def _code_of(group: int, is_interrupted: Callable[[], bool], say: Callable[[str], None]) -> int | None:
    """The exit code of a group's first process, once the last has ended; None if they had to be ended."""
    began, code, said, give_up_at = time.monotonic(), None, False, None
    while give_up_at is None or time.monotonic() < give_up_at:
        code = _reaped(group) if code is None else code
        if code is not None and not _lives(group):
            return code if give_up_at is None else None
        waited_s = time.monotonic() - began
        if give_up_at is None and (waited_s > LIMIT_S or is_interrupted()):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
            # Not longer: a file server that does not answer holds even a killed one.
            give_up_at = time.monotonic() + REAP_S
        elif waited_s > SAID_AFTER_S and not said:
            said = True
            say(f"waiting up to {LIMIT_S:.0f} s for AAE_ON_END")
        time.sleep(POLL_S)
    return None


def _reaped(pid: int) -> int | None:
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # under a parent that ignores SIGCHLD nobody learns how a child ends
        return 0
    return os.waitstatus_to_exitcode(status) if done else None


def _lives(group: int) -> bool:
    """Whether a process of a group lives: what was put in the background. A zombie does not, which some containers never reap."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if its_group == str(group) and state not in "ZX":
                return True
    return False


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Ctrl-C is for the command alone while it runs: the end that it tells of stands."""
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield came
        return
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
