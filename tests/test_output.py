"""Nothing that is only said ends a run or changes its exit code: terminals that close, readers that leave, full disks."""

import contextlib
import fcntl
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from jobs import Job
from made_runs import make_run
from warm import WarmProcess, start_warm

from job import output
from job.output import escaped, told_if_slow
from job.proofs.exactness import Traces

COMMAND = f"{shlex.quote(sys.executable)} -P -m job"


def _lost(job: Job) -> int:
    return [record["reason"] for record in job.events("warning")].count("output_lost")


def _start(job: Job, output: int) -> WarmProcess:
    """`aae-job` with its output to a descriptor, which becomes its terminal if it is one."""
    return start_warm("job", [], job.environment, output=output)


@pytest.mark.parametrize("where", ["a full disk", "a reader that has left", "a reader that does not read"])
def test_a_run_goes_on_whatever_becomes_of_its_output(where: str, small_job: Job, uninterrupted: Traces) -> None:
    """What is said is lost: told once, in the log."""
    reader, writer = os.pipe()
    if where == "a full disk":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    elif where == "a reader that has left":
        os.close(reader)
    else:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
    process = _start(small_job, writer)
    os.close(writer)
    assert process.wait(timeout=120) == 0
    assert _lost(small_job) == 1
    assert small_job.traces() == uninterrupted


def test_a_run_without_any_output_goes_on(small_job: Job, uninterrupted: Traces) -> None:
    """Descriptors that are closed when Python starts; that anything is lost is not told, since nothing was meant to be said."""
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} <&- >&- 2>&-"], env=small_job.environment, timeout=120, check=False
    )
    assert done.returncode == 0
    assert _lost(small_job) == 0
    assert small_job.traces() == uninterrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (None, 75)])
def test_a_run_whose_terminal_is_gone_saves_and_stops_as_asked(
    number: signal.Signals | None, code: int, small_job: Job, uninterrupted: Traces
) -> None:
    """Ctrl-C with a `tee` that died first, and a terminal that closes, which is a SIGHUP."""
    small_job.environment["AAE_CHECKPOINT_EVERY_STEPS"] = "1000"
    read, written = pty.openpty() if number is None else os.pipe()
    process = _start(small_job, written)
    os.close(written)
    small_job.wait_until_step(20)
    os.close(read)
    if number is not None:
        process.send_signal(number)
    assert process.wait(timeout=60) == code
    status = small_job.status()
    assert (status["state"], status["exit_code"], status["step"]) == ("waiting", code, status["checkpoint_step"])
    del small_job.environment["AAE_CHECKPOINT_EVERY_STEPS"]
    assert small_job.run() == 0, small_job.output
    assert small_job.events("resumed")[0]["steps_lost"] == 0
    assert small_job.traces() == uninterrupted


def test_looking_commands_end_with_their_reader_and_others_do_all_they_were_asked(
    small_job: Job, tmp_path: Path
) -> None:
    """No traceback, and no other exit code."""
    assert small_job.run() == 0, small_job.output
    for command in (
        "slurm log small --follow",
        "slurm status small",
        f"slurm collect small {tmp_path}/kept",
        "job verify small",
    ):
        script = f"{shlex.quote(sys.executable)} -P -m {command} | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", script], env=small_job.environment, capture_output=True, text=True, timeout=150, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "kept" / "small").is_dir()


def test_following_a_run_that_waits_ends_with_its_reader(small_job: Job) -> None:
    """Nothing else would end it."""
    small_job.interrupt(signal.SIGTERM, 20)
    follow = f"{shlex.quote(sys.executable)} -P -m slurm log small --follow"
    script = f"{follow} | {{ exec 0<&-; sleep 5; }}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=small_job.environment, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_dry_run_leaves_byte_for_byte(small_job: Job) -> None:
    """What a setup command holds is the user's own, and is not escaped."""
    setup = '["echo a\u00a0b"]'
    script = f"{shlex.quote(sys.executable)} -P -m slurm submit --dry-run"
    environment = {**small_job.environment, "AAE_SLURM_SETUP": setup}
    printed = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=True).stdout
    assert "echo a\u00a0b\n".encode() in printed


def test_ctrl_c_ends_a_looking_command_without_a_traceback(small_job: Job) -> None:
    """`log --follow` of a run that waits."""
    small_job.interrupt(signal.SIGTERM, 20)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "slurm", "log", "small", "--follow"],
        env=small_job.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize(("columns", "term"), [(40, "xterm"), (200, "xterm"), (80, "dumb")])
def test_narrow_and_dumb_terminals_see_progress(columns: int, term: str, small_job: Job) -> None:
    """Steps and the time left at any width; plain lines where nothing can be drawn."""
    small_job.environment["TERM"] = term
    small_job.environment.pop("COLUMNS", None)  # parallel test processes are given one
    read, written = pty.openpty()
    fcntl.ioctl(written, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = _start(small_job, written)
    os.close(written)
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal tells that nobody writes to it any more
        while part := os.read(read, 65536):
            seen += part
    os.close(read)
    assert process.wait(timeout=60) == 0
    if term == "dumb":
        assert b"step " in seen
        assert b"\x1b" not in seen
    else:
        assert b"/600" in seen
        assert b"00:0" in seen
        assert ("━".encode() in seen) == (columns > 100)


def test_foreign_text_is_escaped_as_in_json() -> None:
    """What could steer a terminal, however it is encoded; all that can be read stays."""
    assert escaped("a\tb\nä 数 😀") == "a\tb\nä 数 😀"
    assert escaped("\x1b]0;x\x07\x9b2J\u202eabc\r\x7f") == r"\u001b]0;x\u0007\u009b2J\u202eabc\u000d\u007f"
    assert escaped("\U000e0041") == r"\udb40\udc41"


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "loads"),
    [
        ("job --help", "pydantic"),
        ("slurm --help", "pydantic"),
        ("job evaluate made", "torch"),
        ("job sample made --out x.png", "torch"),
        ("job encode made --out x.npz", "torch"),
    ],
)
def test_ctrl_c_while_a_command_is_loaded_shows_no_traceback(command: str, loads: str, tmp_path: Path) -> None:
    """There is nothing to be ended in order yet; and what torch's own code would make of an exception is anybody's guess."""
    (tmp_path / f"{loads}.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    make_run(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "AAE_RUNS_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == -signal.SIGINT


def test_what_takes_a_while_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And what does not, does not."""
    with told_if_slow("soon done"):
        pass
    monkeypatch.setattr(output, "SLOW_S", 0.01)
    with told_if_slow("still at it"):
        time.sleep(0.5)
    assert capsys.readouterr() == ("", "still at it\n")
