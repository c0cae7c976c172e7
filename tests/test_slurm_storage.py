"""Storage that fails under a job on the real Slurm, with nobody to help: a share that is away, and faults at random."""

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
)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_job_gets_through_random_faults_by_itself(job: SlurmJob, whole: Traces, size: int) -> None:
    """Each some steps after the last; in the end the run is finished, with the bytes of one that nothing happened to."""
    job_id = job.submit(slurm_max_stalls=1000)
    for number in range(max(2, size // 3)):
        begun = job.events("resumed")
        from_step = begun[-1]["from_step"] if begun else 0
        if from_step + 100 >= ON_SLURM["max_steps"]:
            break
        fault = random.choice(FAULTS)
        # Later ones further on, so that even a large campaign comes to an end.
        with job.resting_at(from_step + random.randrange(20, 60), segment=len(begun) + 1) as process:
            print(f"{number + 1:>4}  {fault.__name__.strip('_').replace('_', ' ')} after step {from_step}", flush=True)
            fault(job, process)
        deadline = time.monotonic() + 200
        while len(job.events("resumed")) == len(begun):
            assert time.monotonic() < deadline, f"{fault.__name__}: not begun again\n{job.job_log()}"
            time.sleep(0.2)
    job.wait_until_finished(job_id)
    assert job.traces() == whole


def test_a_job_whose_run_is_away_is_started_on_another_node(job: SlurmJob, whole: Traces) -> None:
    """The share goes away between the job's start and the run's: given up after a minute, counted by Slurm, and begun elsewhere."""
    job_id = job.submit(slurm_setup='["touch /tmp/$SLURM_JOB_ID.begun", "sleep 3"]')
    begun, runs = Path(f"/tmp/{job_id}.begun"), job.run_dir.path.parent
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
