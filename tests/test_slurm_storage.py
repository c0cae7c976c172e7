"""Storage that fails under a job on the real Slurm, with nobody to help: a share that is away, and faults at random."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import ON_SLURM, SlurmJob

from job.proofs.exactness import Traces
from job.proofs.interruptions import lose_page, synced_bytes
from job.rundir.claim import newest_claim, read_segment

# In every Python of the job, from its start: what a file beside the run says goes wrong, for so many seconds.
MADE_TO_FAIL = """
import errno, io, os, threading, time

control = os.environ["TEST_FAULT"]
runs = os.path.dirname(control)
real_open, real_utime = io.open, os.utime

def is_on(kind):
    try:
        with real_open(control) as file:
            named, until = file.read().split()
    except (OSError, ValueError):
        return False
    return named == kind and time.time() < float(until)

def failing(real, kind, number, concerns):
    def call(path, *rest, **named):
        if str(path).startswith(runs) and concerns(str(path), *rest) and is_on(kind):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **named)
    return call

def anything(path, *_):
    return path != control

def checkpoint(path, mode="r", *_):
    return "x" in mode and "checkpoints" in path

io.open = failing(failing(io.open, "read", errno.ESTALE, anything), "quota", errno.EDQUOT, checkpoint)
os.stat = failing(os.stat, "read", errno.EIO, anything)
os.listdir = failing(os.listdir, "read", errno.EIO, anything)

def utime(*given, **named):  # which the run asks before it writes
    if threading.current_thread() is threading.main_thread() and is_on("hang"):
        import torch
        real, lock = torch.addcmul, threading.Lock()  # which a step calls
        def addcmul(*arguments, **options):
            if threading.current_thread() is threading.main_thread():
                lock.acquire()
                lock.acquire()
            return real(*arguments, **options)
        torch.addcmul = addcmul
    return real_utime(*given, **named)

os.utime = utime
"""


def _goes_wrong(job: SlurmJob, kind: str, seconds: float) -> None:
    """From now on, for a while, in all processes of the run's job."""
    Path(job.environment["TEST_FAULT"]).write_text(f"{kind} {time.time() + seconds}")


def _fail_to_read(job: SlurmJob, process: int) -> None:
    """The file server fails over while the job is started again."""
    os.kill(process, signal.SIGKILL)
    _goes_wrong(job, "read", random.uniform(5, 25))


def _reach_quota(job: SlurmJob, process: int) -> None:
    """No new checkpoint for a while, with room on the disk; then as Slurm ends it before a time limit."""
    _goes_wrong(job, "quota", random.uniform(5, 20))
    os.kill(process, signal.SIGUSR2)


def _hang(job: SlurmJob, _: int) -> None:
    """The next step never ends."""
    _goes_wrong(job, "hang", 8)


def _kill(_: SlurmJob, process: int) -> None:
    os.kill(process, signal.SIGKILL)


def _stand_still(_: SlurmJob, process: int) -> None:
    """As a suspended job does, whose clock stands; then as Slurm ends it before a time limit."""
    time.sleep(5)
    os.kill(process, signal.SIGUSR2)


def _lose_status(job: SlurmJob, process: int) -> None:
    lose_page(job.run_dir.status_file)
    os.kill(process, signal.SIGKILL)


def _lose_end_of_log(job: SlurmJob, process: int) -> None:
    lose_page(job.run_dir.events_file, synced_bytes(job.run_dir))
    os.kill(process, signal.SIGKILL)


def _cut_log(job: SlurmJob, process: int) -> None:
    os.kill(process, signal.SIGKILL)
    log = job.run_dir.events_file
    os.truncate(log, random.randint(synced_bytes(job.run_dir), log.stat().st_size))


def _lose_checkpoint(job: SlurmJob, process: int) -> None:
    steps = job.run_dir.checkpoint_steps()
    if len(steps) > 1:
        lose_page(job.run_dir.checkpoint_file(steps[0]))
    os.kill(process, signal.SIGKILL)


def _lose_claim(job: SlurmJob, process: int) -> None:
    lose_page(job.run_dir.claim_file(newest_claim(job.run_dir)))
    os.kill(process, signal.SIGKILL)


def _reboot(job: SlurmJob, process: int) -> None:
    """The claim is of the node before it was started anew."""
    path = job.run_dir.claim_file(newest_claim(job.run_dir))
    claim = json.loads(path.read_bytes())
    claim["owner"]["boot_id"] = "before"
    path.write_text(json.dumps(claim))
    os.kill(process, signal.SIGKILL)


def _vanish(job: SlurmJob, process: int) -> None:
    """The share is away while the job is started again, and comes back."""
    away = job.run_dir.path.with_name("away")
    os.kill(process, signal.SIGKILL)
    job.run_dir.path.rename(away)
    time.sleep(random.uniform(5, 20))
    away.rename(job.run_dir.path)


FAULTS: tuple[Callable[[SlurmJob, int], None], ...] = (
    _kill,
    _stand_still,
    _lose_status,
    _lose_end_of_log,
    _cut_log,
    _lose_checkpoint,
    _lose_claim,
    _reboot,
    _vanish,
    _fail_to_read,
    _reach_quota,
    _hang,
)


def _wait_for_next_segment(job: SlurmJob, segment: int, what: str) -> None:
    """Return once a later segment has begun to train; what comes after a job may have made a claim of its own before."""
    deadline = time.monotonic() + 200
    while True:
        with contextlib.suppress(OSError):
            newest = newest_claim(job.run_dir)
            claim = read_segment(job.run_dir, newest)
            if newest > segment and claim is not None and claim.began_at is not None:
                return
        assert time.monotonic() < deadline, f"{what}: not begun again\n{job.job_log()}"
        time.sleep(0.2)


@pytest.mark.waits(40)
@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_job_gets_through_random_faults_by_itself(
    job: SlurmJob, whole: Traces, size: int, tell: Callable[[str], None], tmp_path: Path
) -> None:
    """Each some steps after the last; in the end the run is finished, with the bytes of one that nothing happened to."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(MADE_TO_FAIL)
    job.load_first(tmp_path / "site")
    job.environment |= {
        "TEST_FAULT": str(job.run_dir.path.parent / "fault"),
        "AAE_STEP_LIMIT_S": "5",
    }
    job_id = job.submit(slurm_max_stalls=1000)
    job.wait_until_step(ON_SLURM["log_every_steps"])
    for number in range(max(2, size // 3)):
        segment = newest_claim(job.run_dir)  # the log may have been cut
        claim = read_segment(job.run_dir, segment)
        assert claim is not None
        from_step = claim.from_step or 0
        if from_step + 100 >= ON_SLURM["max_steps"]:
            break
        fault = random.choice(FAULTS)
        with job.resting_at(from_step + random.randrange(20, 60), segment) as process:
            tell(f"{number + 1:>4}  {fault.__name__.strip('_').replace('_', ' ')} after step {from_step}")
            fault(job, process)
        _wait_for_next_segment(job, segment, fault.__name__)
    job.wait_until_finished(job_id)
    assert job.traces() == whole


@pytest.mark.waits(100)
def test_a_job_whose_run_is_away_is_started_on_another_node(job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """The share goes away between the job's start and the run's: given up after a minute, counted by Slurm, and begun elsewhere."""
    begun, runs = tmp_path / "begun", job.run_dir.path.parent
    job_id = job.submit(slurm_setup=f'["touch {begun}", "sleep 10"]')
    away = runs.with_name("away")
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun.unlink()
    runs.rename(away)
    first = job.cluster.ask("squeue", "-h", "-j", job_id, "-o", "%N")
    deadline = time.monotonic() + 150
    while "Comment=aae:unseen:0" not in job.cluster.ask("scontrol", "show", "job", job_id):
        assert time.monotonic() < deadline, job.cluster.ask("scontrol", "show", "job", job_id)
        time.sleep(0.5)
    away.rename(runs)
    job.wait_until_finished(job_id)
    segment = read_segment(job.run_dir, 1)
    assert segment is not None
    assert segment.owner.node not in (None, first)
    assert job.traces() == whole
