"""One writer a run: who may take over, when, and what a process that was taken over may still do."""

import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.config.sources import Configuration
from job.errors import StorageError, TakenOverError
from job.rundir import claim
from job.rundir.cancel import CancelMark, read_mark
from job.rundir.claim import claim_run
from job.rundir.directory import RunDir
from job.rundir.heartbeat import Heartbeat
from job.rundir.liveness import Owner
from job.rundir.status import Status
from job.segment.plan import plan_start
from job.segment.run import Run


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """An empty run directory, with short waits."""
    monkeypatch.setattr(claim, "TAKEOVER_S", 1.0)
    monkeypatch.setattr(claim, "POLL_S", 0.02)
    return RunDir(tmp_path)


def _elsewhere(**changes: object) -> Owner:
    return Owner.this_process().model_copy(update={"host": "elsewhere", **changes})


def test_a_released_claim_is_taken_at_once(run_dir: RunDir) -> None:
    """Every orderly end releases; the next start does not wait, whoever it is."""
    first = claim_run(run_dir, _elsewhere())
    first.note(cause="terminated")
    assert claim_run(run_dir, Owner.this_process(), tell=pytest.fail).number == 2


@pytest.mark.process
def test_a_dead_process_of_this_host_is_taken_over_at_once(run_dir: RunDir) -> None:
    """No such process, or another process under its number."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    claim_run(run_dir, Owner.this_process().model_copy(update={"pid": gone.pid}))
    second = claim_run(run_dir, Owner.this_process().model_copy(update={"process_start": "1"}), tell=pytest.fail)
    assert second.number == 2
    assert claim_run(run_dir, Owner.this_process(), tell=pytest.fail).number == 3


@pytest.mark.process
def test_a_zombie_is_dead(run_dir: RunDir) -> None:
    """A process that has ended but was not waited for writes no more."""
    zombie = subprocess.Popen(["true"])
    owner = Owner.this_process().model_copy(update={"pid": zombie.pid})
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    claim_run(run_dir, owner)
    assert claim_run(run_dir, Owner.this_process(), tell=pytest.fail).number == 2
    zombie.wait()


def test_a_later_start_of_the_same_job_takes_over_at_once(run_dir: RunDir) -> None:
    """The scheduler never runs two starts of one job; another job's claim is no such proof."""
    claim_run(run_dir, _elsewhere(job_id="5", restart_count=1))
    told: list[str] = []
    assert claim_run(run_dir, Owner.this_process("5", 2), tell=told.append).number == 2
    assert not told
    claim_run(run_dir, _elsewhere(job_id="6", restart_count=0), tell=told.append)
    assert told, "job 6 must look for a sign of life of job 5"


def test_a_holder_that_shows_life_is_named_and_left_alone(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that changes means that somebody writes: the second start ends with exit code 2."""
    monkeypatch.setattr(claim, "TAKEOVER_S", 60.0)
    claim_run(run_dir, _elsewhere(pid=4242, job_id="77"))
    heartbeat = Heartbeat(run_dir, Status(state="running", total_steps=9, segment=1))
    heartbeat.write()

    def show_life(_: str) -> None:
        time.sleep(0.002)  # its time is told to the millisecond
        heartbeat.write()

    with pytest.raises(TakenOverError, match="process 4242 on host elsewhere, job 77 is writing") as caught:
        claim_run(run_dir, Owner.this_process(), tell=show_life)
    assert caught.value.exit_code == 2
    assert not run_dir.claim_file(2).exists()


def test_a_holder_whose_heartbeat_stands_still_is_taken_over_and_fenced_off(run_dir: RunDir) -> None:
    """After the wait the run is taken; the old process, should it wake, can write nothing any more."""
    first = claim_run(run_dir, _elsewhere())
    run_dir.fence = first.check
    heartbeat = Heartbeat(run_dir, Status(state="running", total_steps=9, segment=1))
    heartbeat.write()
    told: list[str] = []
    assert claim_run(RunDir(run_dir.path), Owner.this_process(), tell=told.append).number == 2
    assert len(told) == 1
    before = run_dir.status_file.read_bytes()
    taken_over = pytest.raises(TakenOverError, match="segment 2 has taken this run over")
    with taken_over:
        heartbeat.write()
    with taken_over:
        run_dir.replace(run_dir.final_weights, b"")
    with taken_over:
        first.note(cause="terminated")
    assert run_dir.status_file.read_bytes() == before
    assert not run_dir.final_weights.exists()


def test_of_many_starts_at_once_one_wins(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exclusive creation decides, without a lock; the others see the winner live."""
    monkeypatch.setattr(claim, "TAKEOVER_S", 60.0)
    outcomes: list[int | None] = []

    def start(number: int) -> None:
        own = RunDir(run_dir.path)
        try:
            won = claim_run(own, _elsewhere(pid=number, boot_id=str(number)))
        except TakenOverError:
            outcomes.append(None)
        else:
            outcomes.append(won.number)
            beat = Heartbeat(own, Status(state="running", total_steps=9, segment=won.number))
            while len(outcomes) < len(threads):
                beat.write()
                time.sleep(0.05)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [1] + [None] * 11


@pytest.mark.parametrize("cleared", ["before the link", "after the link"])
def test_a_start_whose_claim_another_clears_away_as_a_leftover_finds_the_other(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, cleared: str
) -> None:
    """The other claims while this start places its claim, and clears its temporary before or after the link is refused."""
    link = Path.hardlink_to

    def overtaken(path: Path, temporary: Path) -> None:
        monkeypatch.setattr(Path, "hardlink_to", link)
        claim_run(run_dir, _elsewhere()).note(cause="terminated")
        assert temporary.exists()
        if cleared == "before the link":
            run_dir.clear_temporaries()
        try:
            path.hardlink_to(temporary)
        finally:
            run_dir.clear_temporaries()

    monkeypatch.setattr(Path, "hardlink_to", overtaken)
    assert claim_run(run_dir, Owner.this_process(), tell=pytest.fail).number == 2


def test_a_cancel_that_meets_the_clearing_of_leftovers_leaves_its_mark(run_dir: RunDir) -> None:
    """The run's writer takes the mark's temporary for a leftover; a folder that is gone stays an error."""
    cleared: list[Path] = []

    def clear_once() -> None:
        if not cleared:
            cleared.extend(run_dir.path.glob(".*.tmp"))
            run_dir.clear_temporaries()

    run_dir.fence = clear_once
    mark = CancelMark(job_id="7", host=None, pid=None, time="now")
    mark.leave(run_dir)
    assert len(cleared) == 1
    assert read_mark(run_dir) == mark
    with pytest.raises(FileNotFoundError):
        mark.leave(RunDir(run_dir.path / "gone"))


def test_a_run_whose_first_sign_of_life_cannot_be_written_gives_up(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is there, and then the disk takes no more, not even a moment later: one message, no traceback."""

    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if target == run_dir.status_file:
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr("job.rundir.patience.PATIENCE_S", 0.2)
    settings = Settings(runs_dir=run_dir.path.parent, run_name=run_dir.path.name)
    with (
        pytest.raises(StorageError, match=r"could not be read or written .*Input/output error"),
        Run(plan_start(Configuration(settings, Allocation(), {}))),
    ):
        pass


def test_a_cancel_while_a_start_waits_for_the_run_is_not_lost(run_dir: RunDir) -> None:
    """A mark that a start finds goes, unless it names this very job; one that is left while it waits stays too."""
    settings = Settings(runs_dir=run_dir.path.parent, run_name=run_dir.path.name)
    configuration = Configuration(settings, Allocation(), {})
    plan = plan_start(configuration)
    CancelMark(job_id="1", host=None, pid=None, time="before").leave(run_dir)
    with Run(plan):
        assert not run_dir.cancel_mark.exists()
    mine = CancelMark(job_id="local-5", host=None, pid=None, time="while torch was loaded")
    mine.leave(run_dir)
    with Run(plan, owner=Owner.this_process("local-5")):
        assert read_mark(run_dir) == mine
    late = CancelMark(job_id=None, host=None, pid=None, time="late")
    # It waits, since the process of the last claim lives: this one.
    with Run(plan, tell=lambda _: late.leave(run_dir)):
        assert read_mark(run_dir) == late
