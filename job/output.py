"""What is said to people: the one place through which a command's words leave the process, and which nothing there can break.

A terminal that closes, a reader that leaves, a full disk under the output: what was to be said is dropped, and the run goes on.
"""

import contextlib
import errno
import io
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

SLOW_S = 3.0
_STALL_S = 1.0  # how long a reader that does not read may hold a run up, once; `Ctrl-S`, a suspended `tee`
_CHUNK = 4096  # what poll(2) promises that a pipe takes at once
_UNUSUAL = re.compile(r"[^\n\t -~]")


class ReaderGoneError(BaseException):
    """Whoever read what a looking command prints has left: there is nothing more to do. Never an error."""


class _Unbreakable(io.RawIOBase):
    """A file descriptor to which every write succeeds; `error` is the last that did not, None for none."""

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self.patient = True
        self.ends_with_reader = False
        self._descriptor = descriptor
        self._stalled = False

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self._write(view)
        except OSError as error:
            self.error = error
            if self.ends_with_reader and error.errno == errno.EPIPE:
                raise ReaderGoneError from None
        return len(view)

    def _write(self, view: memoryview) -> None:
        while view:
            if not self._is_ready():
                raise BlockingIOError(errno.EAGAIN, "nobody reads what is said")
            try:
                view = view[os.write(self._descriptor, view if self.patient else view[:_CHUNK]) :]
            except BlockingIOError:  # somebody else has made a shared terminal non-blocking
                time.sleep(0.01)

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        ready = bool(poll.poll(None if self.patient else 0 if self._stalled else _STALL_S * 1000))
        self._stalled = not ready
        return ready


class _Text(io.TextIOWrapper):
    def __init__(self, binary: "io.BufferedWriter[_Unbreakable]", encoding: str) -> None:
        super().__init__(binary, encoding, errors="backslashreplace", line_buffering=True, write_through=True)


class Output(_Text):
    """A stream for people: foreign characters that could steer a terminal are escaped, as JSON writes them.

    `unescaped` is the same stream for what is to steer it, such as a progress bar.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.raw_output = _Unbreakable(descriptor)
        binary = io.BufferedWriter(self.raw_output)
        super().__init__(binary, encoding)
        self.unescaped = _Text(binary, encoding)

    def write(self, text: str) -> int:
        super().write(escaped(text))
        return len(text)


def install() -> None:
    """Have all that this process says go through here. A descriptor that was closed is /dev/null from now on: the next file
    that is opened, the log say, would be taken for it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not where somebody reads along, as tests do
            setattr(sys, name, Output(descriptor, stream.encoding if stream is not None else "utf-8"))


def _outputs() -> list[_Unbreakable]:
    return [stream.raw_output for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)]


def as_it_stands() -> TextIO:
    """stdout without any escaping: for what steers a terminal on purpose, or has to leave byte for byte."""
    return sys.stdout.unescaped if isinstance(sys.stdout, Output) else sys.stdout


def wait_for_no_reader() -> None:
    """From now on drop what a reader that has stopped reading does not take: training does not wait for it."""
    for output in _outputs():
        output.patient = False


def end_with_reader(ends: bool) -> None:
    """Whether a write to a closed pipe raises ReaderGoneError."""
    for output in _outputs():
        output.ends_with_reader = ends


def rest(seconds: float) -> None:
    """Wait; a looking command whose reader leaves meanwhile has nothing more to wait for, and ends with it."""
    stream = sys.stdout
    if not (isinstance(stream, Output) and stream.raw_output.ends_with_reader):
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(stream.raw_output.fileno(), 0)
    if poll.poll(seconds * 1000):
        raise ReaderGoneError


def lost() -> OSError | None:
    """Why something could not be said, None if everything was."""
    return next((output.error for output in _outputs() if output.error is not None), None)


def say_at_once(text: str) -> None:
    """Say something on stderr from a signal handler or another thread, if it can be said at once."""
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if poll.poll(0):
            os.write(2, text.encode(errors="replace")[:_CHUNK])


def leave(code: int) -> NoReturn:
    """End this process with all that was said, and at once: Python would take torch apart first, for up to a second."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


@contextlib.contextmanager
def told_if_slow(words: str) -> Iterator[None]:
    """Say on stderr what goes on if it takes a while, so that nobody takes the process for one that hangs."""
    timer = threading.Timer(SLOW_S, lambda: print(words, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def size(num_bytes: float) -> str:
    """A size for people: 740 B, 12 kB, 3.4 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "B" else f"{num_bytes:.1f} {unit}"


def escaped(text: str) -> str:
    """Text in which all but printable characters, newlines and tabs stand as in JSON."""
    return _UNUSUAL.sub(_as_in_json, text)


def _as_in_json(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
