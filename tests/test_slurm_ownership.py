"""Whose a job or a process is: nothing that is not surely the run's is believed in or ended, and all that is, is."""

import subprocess
import time
from pathlib import Path

import pytest
from jobs import IN_AN_HOUR, Job, SlurmJob

from job.rundir.claim import claim_run, newest_claim, read_segment
from job.rundir.liveness import Owner
from job.rundir.status import read_status, write_status

pytestmark = pytest.mark.timeout(300)


def _shim(job: SlurmJob, folder: Path, name: str, text: str) -> None:
    """Put a command of the site's before Slurm's own."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    job.environment["PATH"] = f"{folder}:{job.environment['PATH']}"


def test_a_job_that_only_bears_the_number_is_left_alone(job: SlurmJob) -> None:
    """After a wrap of the counter, say: cancel does not end it, and submit does not take it for the run's."""
    first = job.submit(slurm_extra=IN_AN_HOUR)
    owner = Owner.this_process(job_id=first, job_number=first, job_submitted="1", job_script="x")
    claim_run(job.run_dir, owner.model_copy(update={"host": "elsewhere"}))
    job.cluster.ask("scancel", first)
    other = job.cluster.ask("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
    status = read_status(job.run_dir)
    assert status is not None
    write_status(job.run_dir, status.model_copy(update={"job_id": other, "state": "waiting"}))
    assert job.slurm("cancel", "small") == 0, job.output
    assert job.cluster.wait_for_state(other, "RUNNING", "CANCELLED") == "RUNNING"
    write_status(job.run_dir, status.model_copy(update={"job_id": other}))
    assert job.submit(slurm_extra=IN_AN_HOUR) not in (first, other)


@pytest.mark.waits(18)
def test_cancel_ends_every_job_of_the_run_and_tells_what_scancel_says(job: SlurmJob, tmp_path: Path) -> None:
    """Two jobs of one run, however that came about; a scancel that fails, and then one that works."""
    first = job.submit(slurm_extra=IN_AN_HOUR)
    (script,) = job.run_dir.slurm.glob(f"{first}_submission.sh")
    submitted = job.run_dir.slurm / "again.sh"
    submitted.write_text(script.read_text())
    second = job.cluster.ask("sbatch", "--parsable", str(submitted))
    # As an earlier version left it: the run is `cancelled`, and its jobs wait still
    status = read_status(job.run_dir)
    assert status is not None
    write_status(job.run_dir, status.model_copy(update={"state": "cancelled"}))
    _shim(job, tmp_path / "bin", "scancel", "echo 'scancel: error: no permission' >&2; exit 1")
    cancelling = job.start("cancel", "small", module="slurm")
    deadline = time.monotonic() + 60
    while not job.run_dir.cancel_mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    job.cluster.ask("scancel", first, second)  # an administrator does
    assert job.wait(cancelling) == 1
    assert "no permission" in job.output
    (tmp_path / "bin" / "scancel").unlink()
    third = job.cluster.ask("sbatch", "--parsable", str(submitted))
    fourth = job.cluster.ask("sbatch", "--parsable", "--hold", str(submitted))
    assert job.slurm("cancel", "small") == 0, job.output
    assert {job.cluster.state(one) for one in (third, fourth)} == {"CANCELLED"}
    assert job.slurm("cancel", "small") == 0
    assert "nothing to cancel" in job.output
    job.environment["SLURM_CONF"] = str(tmp_path / "no-such.conf")
    assert job.slurm("cancel", "small") == 1
    assert "squeue gives no answer" in job.output


@pytest.mark.process
def test_a_process_id_from_before_a_reboot_is_never_signalled(small_job: Job) -> None:
    """Another process bears it now: cancel leaves that alone, status says lost."""
    assert small_job.run(max_steps=20) == 0
    run_dir = small_job.run_dir
    number = newest_claim(run_dir)
    segment = read_segment(run_dir, number)
    status = read_status(run_dir)
    assert segment is not None
    assert status is not None
    with subprocess.Popen(["sleep", "60"]) as other:
        owner = segment.owner.model_copy(update={"boot_id": "another", "pid": other.pid})
        before = segment.model_copy(update={"owner": owner, "cause": None})
        run_dir.replace(run_dir.claim_file(number), before.model_dump_json().encode())
        write_status(run_dir, status.model_copy(update={"state": "running", "pid": other.pid}))
        assert small_job.slurm("status", "small") == 1
        assert "lost" in small_job.output
        assert small_job.slurm("cancel", "small") == 0, small_job.output
        assert other.poll() is None
        other.kill()
    assert small_job.status()["state"] == "cancelled"
