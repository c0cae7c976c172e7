"""Starts `aae-job` and `aae-slurm` as forks of a process that has loaded torch, so that what a test is about begins seconds sooner.

Nothing of a run is shared: the process that forks has imported modules, and neither started a thread nor drawn a number.
What happens while Python starts and torch loads is tested with processes that start anew: all jobs of Slurm's and submitit's,
those of the campaigns, and every `Job` that is `cold`.
"""

import base64
import contextlib
import fcntl
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_MESSAGE_BYTES = 2**20


class WarmProcess:
    """A process that was forked for us, with what of `subprocess.Popen` the tests use; its output is one pipe."""

    def __init__(self, connection: socket.socket, output: int | None) -> None:
        self.returncode: int | None = None
        self._output = output
        self._connection = connection
        self.pid = int(self._told())

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._told())
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("aae-job", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; returns what it has printed. Raises subprocess.TimeoutExpired."""
        assert self._output is not None, "its output goes elsewhere"
        printed = b""
        while select.select([self._output], [], [], timeout)[0] and (part := os.read(self._output, 65536)):
            printed += part
        self.wait(timeout)
        os.close(self._output)
        return printed.decode(), None

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _told(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._connection.recv(1)  # what it tells next may be there already
            assert part, "the process that forks has ended"
            line += part
        return line


# Takes Python's place in a fork whose curves no test looks at: where a picture of them is asked for, it gives one pixel.
_NO_PICTURES = """#!/bin/sh
case "$*" in *job.results.curves*) exec cat {folder}/pixel.png ;; esac
exec {python} "$@"
"""
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


class ForgeProcess:
    """The process that forks, at an address; it loads torch when it is asked for the first time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aae-warm-")
        folder = Path(self._folder.name)
        (folder / "pixel.png").write_bytes(PIXEL)
        (folder / "python").write_text(_NO_PICTURES.format(folder=folder, python=sys.executable))
        (folder / "python").chmod(0o755)
        self.address = f"{folder}/socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        listener.listen()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno())],
            stdin=subprocess.PIPE,  # it ends when this end of the pipe is closed, however that comes
            pass_fds=[listener.fileno()],
        )
        listener.close()

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._process.communicate(timeout=60)
        self._folder.cleanup()


def start_warm(
    module: str,
    arguments: list[str],
    environment: Mapping[str, str],
    rest_at: int | None = None,
    output: int | None = None,
    *,
    draws: bool = False,
) -> WarmProcess:
    """Run `aae-job` or `aae-slurm`, by its module, in a fork; it stops itself once it has logged the step to rest at.

    With an `output`, a descriptor of the caller's, it begins a session of its own, of which that is the terminal if it is one.
    """
    reader, writer = os.pipe() if output is None else (None, os.dup(output))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["TESTS_FORGE"])
    python = None if draws or module == "slurm" else str(Path(os.environ["TESTS_FORGE"]).with_name("python"))
    what = [module, arguments, dict(environment), str(Path.cwd()), rest_at, output is not None, python]
    request = json.dumps(what).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big") + request], [writer])
    os.close(writer)
    return WarmProcess(connection, reader)


def _serve(listener: socket.socket) -> Callable[[], int] | None:
    """Fork for each connection; returns the command in a fork, and None in the process that forks, at its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        _load()
        message, (output,), _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 1)
        while len(message) < 4 + int.from_bytes(message[:4], "big"):
            message += connection.recv(_MESSAGE_BYTES)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _child(connection, output, message[4:])
        connection.close()
        os.close(output)


def _child(connection: socket.socket, output: int, request: bytes) -> Callable[[], int]:
    """Fork once more: the parent tells how the command ends, the child becomes it."""
    pid = os.fork()
    if pid:
        os.close(output)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # the test has given up
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    module, arguments, environment, folder, rest_at, in_own_session, python = json.loads(request)
    sys.executable = python or sys.executable
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(null)
    if in_own_session:
        os.setsid()
        if os.isatty(1):
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)

    from job.output import leave

    main = importlib.import_module(f"{module}.__main__").main
    if rest_at is not None:
        _rest_at(rest_at)
    return lambda: leave(main(arguments))


def _rest_at(at_step: int) -> None:
    from job.log.writer import EventLog

    write = EventLog.write

    def write_and_rest(log: EventLog, event: str, *, step: int, **fields: Any) -> bytes:
        line = write(log, event, step=step, **fields)
        if step >= at_step:
            EventLog.write = write  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGSTOP)
        return line

    EventLog.write = write_and_rest  # type: ignore[assignment,method-assign]


@cache
def _load() -> None:
    """Import all that the commands do."""
    import job.evaluation.scores
    import job.results.samples
    import job.training.final
    import job.training.trainer  # noqa: F401
    from job.commands import COMMANDS as JOB_COMMANDS
    from job.commands import TRAIN
    from slurm.login import COMMANDS as SLURM_COMMANDS

    for name in (TRAIN, *(command.module for command in (*JOB_COMMANDS.values(), *SLURM_COMMANDS.values()))):
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork takes no threads along"


if __name__ == "__main__":
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(command() if command is not None else 0)
