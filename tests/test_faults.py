"""Faults without Slurm: kills, stopped processes, full and vanished disks, every system call that writes made to fail."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import TOTAL, Job, once, small_settings, strace

import job
from job.proofs.exactness import Traces
from job.proofs.interruptions import KINDS
from job.proofs.verify import Finding, verify_run

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

# 6.6 MB a checkpoint: three do not fit into 20 MB beside the one being written.
ON_A_SMALL_DISK = {"hidden_dim": 200, "max_steps": 300, "checkpoint_every_steps": 30, "keep_checkpoints": 3}


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_random_interruptions_change_no_byte(tmp_path: Path, size: int, tell: Callable[[str], None]) -> None:
    """From the first instant of a process to its last save; the user's own command makes them, shows each, and leaves nothing."""
    job = Job(tmp_path / "runs", small_settings(max_steps=900))
    assert job.run("verify-resume", "--kills", str(size)) == 0, job.output
    print(job.output)
    assert len(re.findall(r"^ +\d+  (?:" + "|".join(KINDS) + ")", job.output, re.MULTILINE)) == size
    assert "equal byte for byte" in job.output
    rows = re.findall(r"^(\S.*?) {2,}(\d+) {2,}(?:[\d,]+ at most|-)", job.output, re.MULTILINE)
    tell(f"{size} interruptions: " + ", ".join(f"{number} {kind}" for kind, number in rows))
    lost = re.findall(r"^(\S.*?) +\d+ +([\d,]+) at most", job.output, re.MULTILINE)
    for kind, steps in lost:
        # A checkpoint every 40 steps, a record every 7; a page of the newest checkpoint may be lost too.
        most = {"SIGKILL": 47, "Ctrl-C twice": 47, "cut log": 47, "lost page": 87}.get(kind, 0)
        assert int(steps.replace(",", "")) <= most, kind
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_difference_is_found() -> None:
    """One digest, one picture or one number that differs is told."""
    one = Traces("a", {"x": "b"}, "c", [[7, 1, 0.5]])
    assert one.differences(Traces("a", {"x": "b"}, "c", [[7, 1, 0.5]])) == []
    assert one.differences(Traces("z", {"x": "b"}, "c", [[7, 1, 0.5]])) == ["final/weights.safetensors differs"]
    assert one.differences(Traces("a", {"y": "b"}, "c", [[7, 1, 0.5]])) == ["lattices/x differs", "lattices/y differs"]
    assert "at step 7" in one.differences(Traces("a", {"x": "b"}, "c", [[7, 1, 0.4]]))[0]
    assert "the end" in one.differences(Traces("a", {"x": "b"}, "c", []))[0]


@pytest.mark.waits(65)
def test_a_stopped_process_that_wakes_up_after_its_successor_writes_nothing(
    small_job: Job, uninterrupted: Traces
) -> None:
    """SIGSTOP, a successor that takes over after a minute without a sign of life, SIGCONT: the old one leaves with 2."""
    first = small_job.start_to_rest(100)
    assert small_job.run() == 0, small_job.output
    assert "waiting up to 60 s for a sign of life" in small_job.output
    after = _everything_below(small_job.run_dir.path)
    first.send_signal(signal.SIGCONT)
    assert small_job.wait(first) == 2
    assert "has taken this run over" in small_job.output
    now = _everything_below(small_job.run_dir.path)
    # It may have been stopped between its question, whether it may write, and the write: that record does not count.
    log = str(small_job.run_dir.events_file)
    late = now.pop(log).removeprefix(after.pop(log))
    assert late.count(b"\n") <= 1
    assert not late or b'"segment":1,' in late
    assert now == after
    assert small_job.traces() == uninterrupted


def _damage(job: Job) -> list[Finding]:
    """What `aae-job verify` finds wrong with a run."""
    return [finding for finding in verify_run(job.run_dir) if not finding.good]


def _everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_that_appears_late_is_waited_for(small_job: Job, uninterrupted: Traces) -> None:
    """A shared filesystem may show another node's files half a minute late: never a fresh start, never a step lost."""
    small_job.interrupt(signal.SIGTERM, 300)
    hidden = small_job.run_dir.path.with_name("hidden")
    shutil.move(small_job.run_dir.checkpoints, hidden)
    small_job.cold = True
    process = small_job.start()
    assert isinstance(process, subprocess.Popen)
    assert process.stdout is not None
    assert any("cannot be seen yet: waiting" in line for line in process.stdout)  # reads up to that line
    time.sleep(1)
    assert process.poll() is None
    shutil.move(hidden, small_job.run_dir.checkpoints)
    assert small_job.wait(process) == 0, small_job.output
    assert [record["steps_lost"] for record in small_job.events("resumed")] == [0]
    assert small_job.traces() == uninterrupted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 20 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small filesystem")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """What the run on the small disk leaves behind where there is room."""
    return once(tmp_path_factory, "reference", small_settings(**ON_A_SMALL_DISK))


@contextlib.contextmanager
def _full(disk: Path) -> Iterator[None]:
    """A disk on which somebody else takes all the room that there is, and all that is freed."""
    filler = disk / "filler"
    ended = threading.Event()

    def fill() -> None:
        # The run makes room by removing checkpoints, and must not be quicker at using it on a busy machine.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)
        with filler.open("wb", buffering=0) as file:
            while not ended.is_set():
                for size in (4096, 1):
                    with contextlib.suppress(OSError):
                        while not ended.is_set():
                            file.write(b"x" * size)
                time.sleep(0.001)

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        ended.set()
        thread.join()
        filler.unlink()


def test_a_run_makes_do_with_a_small_disk(small_disk: Path, reference: Traces) -> None:
    """Where not even the checkpoints to keep fit, older ones make room for the next, and the newest always stays."""
    job = Job(small_disk, small_settings(**ON_A_SMALL_DISK))
    assert job.run() == 0, job.output
    assert job.events("warning") == []
    assert _damage(job) == []
    assert job.traces() == reference


def test_a_disk_that_is_full_for_a_while_costs_nothing(small_disk: Path, reference: Traces) -> None:
    """Training goes on, the heartbeat too; records, lattices and checkpoints are written when there is room again."""
    job = Job(small_disk, small_settings(**ON_A_SMALL_DISK))
    process = job.start_to_rest(100)
    with _full(small_disk):
        process.send_signal(signal.SIGCONT)
        before = job.status()["updated_at"]
        time.sleep(8)
        assert job.status()["updated_at"] > before, "the heartbeat must go on, or the run would be taken for lost"
    assert job.wait(process) == 0, job.output
    assert "save_failed" in [record["reason"] for record in job.events("warning")]
    assert _damage(job) == []
    assert job.traces() == reference


@pytest.mark.waits(67)
def test_a_disk_that_stays_full_ends_the_run_with_a_verdict(small_disk: Path, reference: Traces) -> None:
    """After the last step it waits a minute for room, then says so with exit code 3; with room the same command goes on."""
    job = Job(small_disk, small_settings(**ON_A_SMALL_DISK))
    process = job.start_to_rest(200)
    with _full(small_disk):
        process.send_signal(signal.SIGCONT)
        assert job.wait(process) == 3, job.output
    for word in ("takes no writes", "Make room", str(job.run_dir.path)):
        assert word in job.output
    status = job.status()
    assert (status["state"], status["reason"], status["exit_code"]) == ("failed", "disk", 3)
    assert job.run() == 0, job.output
    assert job.traces() == reference


@pytest.mark.parametrize("comes_back", [True, pytest.param(False, marks=pytest.mark.waits(64))])
def test_a_run_directory_that_vanishes(comes_back: bool, small_job: Job, uninterrupted: Traces) -> None:
    """An unmounted share: nothing is written in its place; back within a minute it goes on, else exit code 3 says where."""
    away = small_job.run_dir.path.with_name("away")
    process = small_job.start_to_rest(100, max_steps=TOTAL if comes_back else 10**6)
    small_job.run_dir.path.rename(away)
    process.send_signal(signal.SIGCONT)
    if comes_back:
        time.sleep(5)
        assert not small_job.run_dir.path.exists()
        away.rename(small_job.run_dir.path)
        assert small_job.wait(process) == 0, small_job.output
    else:
        assert small_job.wait(process) == 3, small_job.output
        assert "takes no writes" in small_job.output
        assert not small_job.run_dir.path.exists()
        away.rename(small_job.run_dir.path)
        assert small_job.run() == 0, small_job.output
    assert small_job.traces() == uninterrupted


@pytest.mark.parametrize("may", ["be read", "not even be looked at"])
def test_a_run_directory_that_takes_nothing_for_a_while(may: str, small_job: Job, uninterrupted: Traces) -> None:
    """No file can be made in it, or its folder may not be entered: training goes on, and all is written once it can be."""
    if os.geteuid() == 0:
        # Root may go and write anywhere but for this.
        without = "-dac_override,-dac_read_search"
        small_job.prefix = ("setpriv", f"--inh-caps={without}", f"--bounding-set={without}")
    process = small_job.start()
    small_job.wait_for_step(process, 20)
    run = small_job.run_dir.path
    folders = [run, *(p for p in run.iterdir() if p.is_dir())] if may == "be read" else [run.parent]
    for folder in folders:
        folder.chmod(0o555 if may == "be read" else 0)
    time.sleep(5)
    for folder in folders:
        folder.chmod(0o755)
    assert small_job.wait(process) == 0, small_job.output
    assert "save_failed" in [record["reason"] for record in small_job.events("warning")]
    assert small_job.traces() == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_although_the_disk_does_not_say_who_asks(
    number: signal.Signals, small_job: Job, uninterrupted: Traces
) -> None:
    """Every look for a cancel mark fails with a stale handle: saved at that very step, and the right exit code."""
    small_job.prefix = strace("newfstatat,stat,statx", "error=ESTALE", [small_job.run_dir.cancel_mark])
    small_job.environment["AAE_CHECKPOINT_EVERY_STEPS"] = "10000"
    process = small_job.start()
    small_job.wait_for_step(process, 20)
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])  # of strace
    os.kill(child, number)
    assert small_job.wait(process) == (130 if number == signal.SIGINT else 75), small_job.output
    status = small_job.status()
    assert (status["state"], status["checkpoint_step"]) == ("waiting", status["step"])
    small_job.prefix = ()
    del small_job.environment["AAE_CHECKPOINT_EVERY_STEPS"]
    assert small_job.run() == 0, small_job.output
    assert [record["steps_lost"] for record in small_job.events("resumed")] == [0]
    assert small_job.traces() == uninterrupted


def test_an_installation_that_is_replaced_while_a_run_trains(
    small_job: Job, uninterrupted: Traces, tmp_path: Path
) -> None:
    """As by an upgrade: all of this project that the run needs to its end was loaded at its start."""
    site_packages = Path(job.__file__).parent.parent
    for package in ("aae", "job", "slurm"):
        shutil.copytree(site_packages / package, tmp_path / "installed" / package)
    small_job.cold = True
    small_job.load_first(tmp_path / "installed")
    process = small_job.start()
    small_job.wait_for_step(process, 20)
    shutil.rmtree(tmp_path / "installed")
    assert small_job.wait(process) == 0, small_job.output
    assert small_job.events("warning") == []
    assert small_job.traces() == uninterrupted


WRITING_CALLS = ("write", "pwrite64", "fsync", "rename", "link", "unlink", "mkdir", "ftruncate", "rmdir")


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_every_system_call_that_writes_may_fail_once(tmp_path: Path, size: int, tell: Callable[[str], None]) -> None:
    """Each in turn refused by the kernel (at a large size all of them): no byte is lost, at worst by one more start."""
    settings = small_settings(max_steps=60, checkpoint_every_steps=20, lattice_every_steps=30)
    whole = Job(tmp_path / "whole", settings)
    whole.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    counts = tmp_path / "counts"
    whole.prefix = ("strace", "-f", "--seccomp-bpf", "-c", "-o", str(counts), "-e", f"trace={','.join(WRITING_CALLS)}")
    assert whole.run() == 0, whole.output
    rows = (line.split() for line in counts.read_text().splitlines())
    made = {row[-1]: int(row[3]) for row in rows if row and row[-1] in WRITING_CALLS}
    assert {"write", "fsync", "rename", "link", "unlink", "mkdir"} <= made.keys()
    every = [(call, number) for call, count in made.items() for number in range(1, count + 1)]
    stopped = 0
    for call, number in random.sample(every, min(size, len(every))):
        error = random.choice(["ENOSPC", "EDQUOT", "EIO", "EROFS"])
        job = Job(tmp_path / f"{call}-{number}", settings)
        job.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        inject = f"error={error}:when={number}"
        job.prefix = strace(call, inject)
        code = job.run()
        printed, job.prefix = job.output, ()
        stopped += code != 0
        where = f"{call}:{inject}: exit code {code}\n{printed}"
        assert job.run() == 0, f"{where}\nthen: {job.output}"
        assert _damage(job) == [], where
        assert job.traces() == whole.traces(), where
        assert not list(job.run_dir.path.rglob(".*.tmp")), where
    tell(f"{min(size, len(every))} of {len(every)} calls made to fail, {stopped} of them ended the process")
