"""`aae-slurm watch` as a process: on a terminal, and in a pipe."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_watch import append, record

from job.config.settings_file import Record
from job.config.sources import read_configuration
from job.rundir.directory import RunDir
from job.rundir.status import Status, now

LEFT = "\x1b[?1049l"  # what leaves the alternate screen, on which the view is drawn
CURSOR = "\x1b[?25h"  # what shows the cursor again


class Watch:
    """`aae-slurm watch` of a run of files, with a squeue that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = RunDir(folder / "runs" / "small")
        self.run_dir.path.mkdir(parents=True)
        named = {"AAE_RUNS_DIR": str(folder / "runs"), "AAE_RUN_NAME": "small", "AAE_SEED": "3"}
        Record.of(read_configuration(environment=named)).write(self.run_dir)
        self.queue = folder / "queue"
        self.output = ""
        (folder / "bin").mkdir()
        squeue = folder / "bin" / "squeue"
        squeue.write_text(f"#!/bin/sh\nif [ -e '{self.queue}' ]; then cat '{self.queue}'; else exit 1; fi\n")
        squeue.chmod(0o755)
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": path,
            "AAE_RUNS_DIR": str(folder / "runs"),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }
        self.environment.pop("LC_ALL", None)

    def queued(self, state: str, reason: str = "None") -> None:
        """Have the scheduler list the run's job."""
        self.queue.write_text(f"5|5|{time.time() - 7:.0f}|{state}|{reason}|N/A|n1|{self.run_dir.path}/slurm/x.sh\n")

    def status(self, state: str, segment: int, step: int, **fields: Any) -> None:
        """Write the run's status.json."""
        kept = {
            "state": state,
            "segment": segment,
            "step": step,
            "total_steps": 1000,
            "job_id": "5",
            "host": "n1",
            **fields,
        }
        status = Status.model_validate({"progress_at": now(), **kept})
        self.run_dir.replace(self.run_dir.status_file, status.model_dump_json().encode())

    def start(self, columns: int | None = None, **changes: str) -> "subprocess.Popen[bytes]":
        """Start it on a terminal so wide, else with its output to a pipe; what it prints is read into `output`."""
        reader, writer = pty.openpty() if columns is not None else os.pipe()
        if columns is not None:
            self.resize(writer, columns)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "slurm", "watch", "small"],
            env=self.environment | changes, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        self.reader = reader
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return process

    def resize(self, descriptor: int, columns: int) -> None:
        """Give a terminal another size."""
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def _read(self) -> None:
        whole = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while data := os.read(self.reader, 65536):
                self.output += whole.decode(data)

    def wait_for(self, words: str) -> None:
        """Wait until it has printed some words since this was asked last."""
        deadline = time.monotonic() + 30
        while words not in self.output[getattr(self, "_seen", 0) :]:
            assert time.monotonic() < deadline, f"no {words!r} in {self.output[-3000:]!r}"
            time.sleep(0.05)
        self._seen = self.output.index(words, getattr(self, "_seen", 0))

    def end(self, process: "subprocess.Popen[bytes]") -> int:
        """Wait for its end; returns the exit code."""
        code = process.wait(timeout=30)
        self._thread.join(10)
        return code


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """A run that trains."""
    watch = Watch(tmp_path)
    watch.queued("RUNNING")
    append(watch.run_dir, record("started", 0, host="n1", device="cpu"), record("step", 100))
    watch.status("running", 1, 100)
    return watch


def _go_on(watch: Watch) -> Callable[[], None]:
    """Have the run stop for a requeue, be started again, and finish, each seen before the next."""

    def go_on() -> None:
        watch.wait_for("training on n1")
        append(watch.run_dir, record("stopped", 120, reason="time_limit"))
        watch.status("waiting", 1, 120, reason="time_limit", verdict="saved")
        watch.wait_for("requeued: Slurm starts it again in about")
        append(
            watch.run_dir,
            record("resumed", 120, 2, from_step=120, host="n2", previous="stopped"),
            record("step", 200, 2),
        )
        watch.status("running", 2, 200, host="n2", waits_s=[125])
        watch.wait_for("training on n2")
        watch.run_dir.status_file.write_bytes(b"{")
        watch.wait_for("is damaged")
        append(watch.run_dir, record("step", 1000, 2), record("finished", 1000, 2, elapsed_s=9))
        watch.status("finished", 2, 1000, verdict="all done")

    return go_on


@pytest.mark.process
def test_a_terminal_shows_a_run_over_its_segments_and_keeps_the_last_view(watch: Watch) -> None:
    """What it was drawn on is left, the cursor is shown again, and below the last view stands what to type next."""
    process = watch.start(columns=80)
    _go_on(watch)()
    assert watch.end(process) == 0
    drawn, _, kept = watch.output.rpartition(LEFT)
    assert "training on n2" in drawn
    assert CURSOR in watch.output[watch.output.rindex("\x1b[?25l") :]
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", kept).replace("\r", "").splitlines()
    assert lines[0] == "small  finished  job 5"
    assert "all done" in lines[1]
    assert lines[-3:-1] == ["next:", f"  aae-slurm collect {watch.run_dir.path} results"]
    assert max(map(len, lines[:-3])) <= 80
    assert len(lines) < 24


@pytest.mark.process
def test_a_pipe_gets_plain_lines(watch: Watch) -> None:
    """States, events, and steps as the job itself prints them; nothing that steers a terminal."""
    process = watch.start(FORCE_COLOR="1")
    _go_on(watch)()
    assert watch.end(process) == 0
    assert "\x1b" not in watch.output
    told = [line[6:] if re.match(r"\d\d:\d\d ", line) else line for line in watch.output.splitlines()]
    assert told[0] == f"run   {watch.run_dir.path}"
    assert (
        "step 100/1,000  reconstruction 0.0099  discriminator 1.380  generator 0.690  D accuracy 0.55  1,000 images/s"
        in told
    )
    assert [line for line in told if line.startswith("running, job 5, segment 2")]
    assert any("went on at step 120 on n2; the last segment stopped" in line for line in told)
    assert any(line.startswith("step 1,000/1,000") for line in told)
    assert told[-4] == "finished, job 5: all done"


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_whoever_leaves_finds_the_terminal_as_it_was(watch: Watch, number: signal.Signals, code: int) -> None:
    """Ctrl-C leaves the last view; SIGTERM and SIGHUP nothing. The run is not touched."""
    process = watch.start(columns=80)
    watch.wait_for("training on n1")
    before = sorted(path.name for path in watch.run_dir.path.iterdir())
    process.send_signal(number)
    assert watch.end(process) == code
    assert LEFT in watch.output
    assert CURSOR in watch.output[watch.output.rindex("\x1b[?25l") :]
    assert ("left; what it showed goes on: aae-slurm watch" in watch.output) == (number == signal.SIGINT)
    assert sorted(path.name for path in watch.run_dir.path.iterdir()) == before


@pytest.mark.process
def test_another_size_of_the_terminal_is_drawn_at_once(watch: Watch) -> None:
    """A narrower one shows less of a line, none of it wrapped."""
    process = watch.start(columns=120)
    watch.wait_for("training on n1")
    at = len(watch.output)
    watch.resize(watch.reader, 40)
    deadline = time.monotonic() + 30
    while not 0 < _width_of_last_view(watch.output[at:]) <= 40:
        assert time.monotonic() < deadline, watch.output[at:]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert watch.end(process) == 130
    assert _width_of_last_view(watch.output[at:]) <= 40


def _width_of_last_view(drawn: str) -> int:
    """Columns of what was drawn last as a whole, 0 if nothing was."""
    *_, last = ["", *drawn.split("\x1b[H")[1:]]
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", last.partition("\x1b[?")[0]).replace("\r", "")
    return max(map(len, plain.splitlines()), default=0)


@pytest.mark.process
def test_a_reader_that_leaves_ends_it(watch: Watch) -> None:
    """`| head` is no error."""
    script = f"'{sys.executable}' -P -m slurm watch small | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=watch.environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"run   {watch.run_dir.path}\n0\n"
    assert done.stderr == ""


@pytest.mark.process
def test_a_run_that_waits_without_a_job_ends_it(watch: Watch) -> None:
    """It needs a person: exit code 1, and what to type. With a scheduler that is away nothing can be said of it, so it goes on."""
    watch.status("waiting", 1, 120, reason="time_limit", verdict="saved")
    watch.queue.unlink()
    process = watch.start()
    watch.wait_for("the scheduler does not answer")
    assert process.poll() is None
    watch.queue.write_text("")
    watch.status("waiting", 2, 120, reason="time_limit", verdict="saved")
    assert watch.end(process) == 1
    assert "submit again" in watch.output
    assert watch.output.endswith(
        f"  aae-slurm submit --run-name small --runs-dir {watch.run_dir.path.parent} --seed 3\n"
    )
