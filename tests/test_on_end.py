"""AAE_ON_END: who ends a run has it told, once, and nothing that the command does changes the end."""

import errno
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from jobs import Job

from job.config.settings_file import Record
from job.config.sources import read_configuration
from job.errors import SettingsError, TakenOverError
from job.log.reader import last_records
from job.rundir.claim import claim_run
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.status import Status, write_status
from job.segment import on_end
from job.segment.on_end import tell_of_end
from slurm import aftermath

FAILED = Status(state="failed", verdict='it\'s "over"\n\0\x1b[1m', segment=3, step=7, total_steps=9)


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A run's, in a folder whose name a shell would take apart."""
    path = tmp_path / "a 'b'\"$HOME"
    path.mkdir()
    return RunDir(path)


@pytest.fixture
def end(run_dir: RunDir) -> Callable[..., list[str]]:
    """Tells of an end by a command; answers what was said."""

    def tell(command: str, status: Status = FAILED, **how: bool) -> list[str]:
        said: list[str] = []
        tell_of_end(run_dir, status, command, said.append, **how)
        return said

    return tell


@pytest.mark.process
def test_each_end_that_matters_is_told_once(end: Callable[..., list[str]], tmp_path: Path) -> None:
    """By whichever process comes first; where a run only waits, or was cancelled, nothing is told; a later segment is."""
    told = tmp_path / "told"
    command = f'echo "$AAE_STATE" >> {told}'
    for segment, (state, how) in enumerate(
        [
            ("finished", {}),
            ("failed", {}),
            ("failed", {"is_found": True}),
            ("waiting", {"stays": True}),
            ("waiting", {}),
            ("cancelled", {}),
            ("running", {}),
        ],
        start=1,
    ):
        status = FAILED.model_copy(update={"state": state, "segment": segment})
        assert [end(command, status, **how) for _ in range(2)] == [[], []]
    assert told.read_text().split() == ["finished", "failed", "failed", "waiting"]


@pytest.mark.process
def test_the_command_finds_a_shell_as_it_would_be_typed_in(
    end: Callable[..., list[str]], run_dir: RunDir, tmp_path: Path
) -> None:
    """No signal blocked or ignored, nothing to read, a session of its own, and words that steer no terminal."""
    out = shlex.quote(str(tmp_path / "out"))
    command = f"""
        {{ cat; grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f 2; ps -o sid= -p $$ | grep -qx " *$$" && echo "it's alone"
        echo "$AAE_RUN_DIR"; printf '%s\n' "$AAE_VERDICT"; }} > {out}"""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        assert end(command) == []
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGTERM, before)
    blocked, ignored, *rest = (tmp_path / "out").read_text().splitlines()
    ordinary = 2**31 - 1  # beyond are those of the C library
    assert (int(blocked, 16) & ordinary, int(ignored, 16) & ordinary) == (0, 0)
    assert rest == ["it's alone", str(run_dir.path), 'it\'s "over"', "\\u0000\\u001b[1m"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 3", "ended with exit code 3"),
        ("no-such-command", "ended with exit code 127"),
        ("kill -KILL $$", "was ended by SIGKILL"),
        ("x" * 200_000, "could not be started"),
        ("trap '' TERM; sleep 77 & sleep 77", "was ended after 1 s"),
        ("sleep 77 &", "was ended after 1 s"),
        ("yes | cat > /dev/null", "was ended after 1 s"),
    ],
)
def test_a_command_that_fails_is_a_warning(
    command: str, words: str, end: Callable[..., list[str]], run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said and in the log; one that does not end is ended with all that it has started."""
    monkeypatch.setattr(on_end, "LIMIT_S", 1.0)
    (said,) = end(command)
    assert words in said
    (record,) = last_records(run_dir.events_file, 3)
    assert (record["event"], record["reason"], record["segment"], record["step"]) == ("warning", "on_end", 3, 7)
    assert f"warning: {record['message']}" == said
    ours = f"AAE_RUN_DIR={run_dir.path}".encode()
    assert [path for path in Path("/proc").glob("[0-9]*/environ") if ours in _content(path)] == []


@pytest.mark.process
def test_what_is_ended_is_waited_for(
    end: Callable[..., list[str]], run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a shell that has ended itself left behind, and that the kernel takes its time to end."""
    kill = os.killpg

    def kill_late(*what: int) -> None:
        threading.Timer(0.5, kill, what).start()

    monkeypatch.setattr(os, "killpg", kill_late)
    monkeypatch.setattr(on_end, "LIMIT_S", 0.3)
    monkeypatch.setattr(on_end, "REAP_S", 60.0)
    (said,) = end("sleep 77 &")
    assert "was ended after 0 s" in said
    ours = f"AAE_RUN_DIR={run_dir.path}".encode()
    assert [path for path in Path("/proc").glob("[0-9]*/environ") if ours in _content(path)] == []


@pytest.mark.process
def test_a_command_that_ended_while_nobody_looked_has_ended_by_itself(
    end: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last moment was over when this process came to look again."""
    monkeypatch.setattr(on_end, "LIMIT_S", 0.5)
    monkeypatch.setattr(on_end, "POLL_S", 2.0)
    (said,) = end("sleep 0.2; exit 3")
    assert "ended with exit code 3" in said


@pytest.mark.process
def test_a_ctrl_c_in_the_moment_of_its_start_is_for_the_command(
    end: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun, and this process is not yet back from starting it."""
    spawn = os.posix_spawn

    def spawn_and_interrupt(*what: Any, **how: Any) -> int:
        group = spawn(*what, **how)
        os.kill(os.getpid(), signal.SIGINT)
        return group

    monkeypatch.setattr(os, "posix_spawn", spawn_and_interrupt)
    (said,) = end("sleep 77")
    assert "was ended by Ctrl-C" in said


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.process
def test_what_is_put_in_the_background_has_its_time_too(end: Callable[..., list[str]], tmp_path: Path) -> None:
    """A message on its way is not cut off because the shell has ended."""
    assert end(f"(sleep 0.5; touch {tmp_path}/late) &") == []
    assert (tmp_path / "late").exists()


@pytest.mark.process
def test_an_end_that_cannot_be_marked_is_told_by_its_writer(
    end: Callable[..., list[str]], run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A failed disk is what somebody has to hear of; not from one who has only found the end, nor of a run that others have now."""

    def refuse(path: Path, _: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    command = f"echo told >> {tmp_path}/told"
    end(command, is_found=True)
    assert not (tmp_path / "told").exists()
    end(command)
    assert (tmp_path / "told").read_text() == "told\n"

    def fence() -> None:
        raise TakenOverError("elsewhere")

    run_dir.fence = fence
    end(command)
    assert (tmp_path / "told").read_text() == "told\n"


def test_the_commands_own_variables_are_no_settings() -> None:
    """So that it can submit; AAE_RUN_DIR alone is still a slip for AAE_RUNS_DIR."""
    told = {"AAE_RUN_DIR": "/r", "AAE_STATE": "failed", "AAE_VERDICT": ""}
    assert read_configuration(environment={**told, "AAE_SEED": "3"}).settings.seed == 3
    with pytest.raises(SettingsError, match=r"AAE_RUN_DIR.*did you mean AAE_RUNS_DIR\?"):
        read_configuration(environment={"AAE_RUN_DIR": "/r"})


@pytest.mark.process
def test_a_run_tells_that_it_is_finished_and_stays_so(small_job: Job, tmp_path: Path) -> None:
    """Once its end is written and the run let go; whatever signals come then; a larger total is another end."""
    told = tmp_path / "told"
    command = f"""
        grep -o '"state": *"[a-z]*"' "$AAE_RUN_DIR/status.json" >> {told}
        grep -o '"cause":"[a-z]*"' "$AAE_RUN_DIR"/.claims/00000? | tail -n 1 >> {told}
        touch {told}.made; sleep 1; echo "as $AAE_STATE" >> {told}; exit 5"""
    process = small_job.start(max_steps=20, on_end=command)
    while not Path(f"{told}.made").exists():
        assert process.poll() is None
        time.sleep(0.02)
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        process.send_signal(number)
    assert small_job.wait(process) == 0, small_job.output
    assert "warning: AAE_ON_END ended with exit code 5" in small_job.output
    assert small_job.run("verify", str(small_job.run_dir.path)) == 0, small_job.output
    assert small_job.run(max_steps=20, on_end=command) == 0
    assert small_job.run(max_steps=30, on_end=command) == 0
    lines = told.read_text().splitlines()
    assert lines[1].endswith('"cause":"finished"')
    assert [lines[0], lines[2]] == ['"state": "finished"', "as finished"]
    assert len(lines) == 6
    assert [record["reason"] for record in small_job.events("warning")] == ["on_end", "on_end"]


@pytest.mark.process
def test_a_run_tells_that_it_has_failed_and_not_that_it_was_stopped(small_job: Job, tmp_path: Path) -> None:
    """A loss that is no number: exit code 3 as without; Ctrl-C, which ends a command that hangs too, changes nothing."""
    told = tmp_path / "told"
    command = f"echo $AAE_STATE >> {told}; trap '' INT TERM; sleep 77"
    assert small_job.interrupt(signal.SIGINT, 20, on_end=command) == 130
    assert not told.exists()
    other: dict[str, Any] = {"run_name": "other", "encoder_lr": "1e30", "decoder_lr": "1e30", "max_steps": 100}
    process = small_job.start(on_end=command, **other)
    while not told.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert small_job.wait(process) == 3, small_job.output
    assert "AAE_ON_END was ended by Ctrl-C" in small_job.output
    assert told.read_text() == "failed\n"


@pytest.mark.process
def test_the_batch_script_tells_what_the_task_did_not_live_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    """The run's end is on disk and not marked: told once, and by the job alone that wrote it."""
    told = tmp_path / "told"
    variables = {"AAE_RUNS_DIR": str(tmp_path), "AAE_RUN_NAME": "small", "AAE_ON_END": f"echo $AAE_STATE >> {told}"}
    record = Record.of(read_configuration(environment=variables))
    run_dir = RunDir(tmp_path / "small")
    run_dir.path.mkdir()
    record.write(run_dir)
    claim_run(run_dir, Owner.this_process("5")).note(cause="finished")
    write_status(run_dir, Status(state="finished", segment=1, job_id="5", step=9, total_steps=9))
    commands.shows({"JobState": "RUNNING"})
    commands.queue()
    for job_id, lines in (("6", ""), ("5", "finished\n"), ("5", "finished\n")):
        monkeypatch.setenv("SLURM_JOB_ID", job_id)
        aftermath.main([str(run_dir.path), "0"])
        assert (told.read_text() if told.exists() else "") == lines
