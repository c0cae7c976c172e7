"""What ends a run for good on a real Slurm: an allowance that is used up, too little memory, settings that cannot be read."""

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from cluster import Cluster
from jobs import IN_AN_HOUR, LOGGED, SlurmJob, as_nobody

from job.proofs.exactness import Traces
from job.rundir.claim import read_segment

pytestmark = pytest.mark.timeout(400)


@pytest.mark.waits(35)
def test_kills_that_leave_no_progress_end_the_run_and_a_submit_sets_that_aside(
    job: SlurmJob, whole: Traces, tmp_path: Path
) -> None:
    """As many in a row as it is allowed: a verdict, exit code 3, job FAILED.

    The batch script tells AAE_ON_END, whose command submits the run again from within the job that ends; that job's count begins
    anew, and its end is told too.
    """
    told = tmp_path / "told"
    submit = f"{shlex.quote(sys.executable)} -P -m slurm submit"
    exit_code = """grep -o '"exit_code": *[0-9]*' "$AAE_RUN_DIR/status.json" """
    command = f"""
        {{ echo "$AAE_STATE, $AAE_VERDICT"; {exit_code}; if [ $AAE_STATE = failed ]; then {submit}; fi; }} >> {told}"""
    first = job.submit(slurm_max_stalls=2, checkpoint_every_steps=10**6, on_end=command)
    for segment in (1, 2):
        with job.resting_at(LOGGED, segment) as process:
            os.kill(process, signal.SIGKILL)
    assert job.cluster.wait_for_state(first, "FAILED", "COMPLETED") == "FAILED"
    lines = told.read_text().splitlines()
    assert lines[0].startswith("failed, the process was killed by SIGKILL")
    assert "2 segments in a row" in lines[0]
    assert "submit the run again" in lines[0]
    assert lines[1].split() == ['"exit_code":', "3"]
    (again,) = [line.split()[-1] for line in lines if line.startswith("as ")]
    assert again != first
    with job.resting_at(LOGGED, segment=3) as process:
        assert job.cluster.state(first) == "FAILED", "it has had the time that a requeue takes"
        os.kill(process, signal.SIGKILL)  # the count has begun anew
    failed = job.events("failed")
    assert [(record["reason"], record["exit_code"]) for record in failed[:2]] == [("killed", 137)] * 2
    job.wait_until_finished(again)
    states = [line.split(",")[0] for line in told.read_text().splitlines()]
    assert [state for state in states if state in ("failed", "finished")] == ["failed", "finished"]
    assert job.events("warning") == []
    assert job.traces() == whole


@pytest.mark.waits(20)
def test_exceptions_at_one_step_end_the_run_with_their_story(job: SlurmJob) -> None:
    """Too little memory for the networks (a limit set by the batch script): told as that, tried once more, then a verdict."""
    job_id = job.submit(slurm_setup='["ulimit -d 1500000"]', hidden_dim=12000, slurm_max_stalls=2)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED", timeout_s=200) == "FAILED"
    failed = job.events("failed")
    assert [(record["reason"], record["exit_code"]) for record in failed] == [("out_of_memory", 1)] * 2
    status = job.status()
    assert (status["state"], status["exit_code"], status["reason"]) == ("failed", 3, "out_of_memory")
    for word in ("AAE_SLURM_MEM", "AAE_HIDDEN_DIM", "2 segments in a row", "in an exception at step 0"):
        assert word in status["verdict"], status["verdict"]
    assert "ExitCode=3:0" in job.cluster.ask("scontrol", "show", "job", job_id)
    crash = status["crash"]
    assert "load" in crash["traceback"]
    assert crash["host"] == status["host"]
    assert crash["peak_memory_bytes"] > 2**26
    assert [record["event"] for record in crash["last_records"]]
    assert job.slurm("status", "small") == 1


def test_settings_that_cannot_be_read_end_the_run_at_once(job: SlurmJob) -> None:
    """What is refused would be refused again: a verdict and exit code 2 instead of three restarts."""
    job_id = job.submit(slurm_extra='{"hold": true}')
    job.run_dir.settings_file.write_text("{}")
    job.cluster.ask("scontrol", "release", job_id)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    status = job.status()
    assert (status["state"], status["reason"], status["exit_code"]) == ("failed", "refused", 2)
    assert "settings.json is damaged" in status["verdict"]
    time.sleep(7)  # longer than a requeue takes
    assert job.cluster.state(job_id) == "FAILED"


def test_a_submission_that_timed_out_but_reached_slurm_is_found_again(job: SlurmJob, tmp_path: Path) -> None:
    """sbatch submits and then fails to say so: the queue tells of the job, to this submit and to the next one."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2\nexit 1\n'
    )
    sbatch.chmod(0o755)
    path = job.environment["PATH"]
    job.environment["PATH"] = f"{sbatch.parent}:{path}"
    job_id = job.submit(slurm_extra=IN_AN_HOUR)
    job.environment["PATH"] = path
    assert job.submit(slurm_extra=IN_AN_HOUR) == job_id
    assert "it has already" in job.output
    assert job.cluster.ask("squeue", "-h", "-o", "%A") == job_id
    assert (job.shown()["state"], job.shown()["needs_person"]) == ("submitted", False)


@pytest.mark.waits(35)
def test_a_job_that_outgrows_its_memory_is_told_so_and_given_more(memory_cluster: Cluster) -> None:
    """The kernel kills an ordinary user's job at a real limit: recognised, tried once more, then a verdict.

    Where it may, its restart is given half more, up to AAE_SLURM_MAX_MEM, which the next submit keeps.
    """
    with as_nobody(memory_cluster, hidden_dim=3500, max_steps=1) as (job, submit):
        job_id = submit({"AAE_SLURM_MEM": "900M"})
        assert memory_cluster.wait_for_state(job_id, "FAILED", "COMPLETED", timeout_s=200) == "FAILED"
        assert [record["reason"] for record in job.events("failed")] == ["out_of_memory"] * 2, job.job_log()
        status = job.status()
        assert (status["state"], status["exit_code"]) == ("failed", 3)
        told = "2 segments in a row have been killed with the same memory"
        for words in ("more memory than it was given", "AAE_SLURM_MEM", told):
            assert words in status["verdict"]

        more = {"AAE_SLURM_MEM": "1700M", "AAE_SLURM_MAX_MEM": "4G"}
        job.wait_until_finished(submit(more))
        given = [s.owner.mem_mb for number in range(3, 9) if (s := read_segment(job.run_dir, number)) is not None]
        assert given[0] == 1700
        assert given[1:] == [int(1700 * 1.5**n) for n in range(1, len(given))]
        assert len(given) > 1
        more_memory = [record["message"] for record in job.events("warning") if record["reason"] == "more_memory"]
        assert len(more_memory) == len(given)
        assert "1,700 MiB of memory now instead of 900" in more_memory[0]
        assert f"with {given[1]:,} MiB of memory instead of 1,700" in job.job_log()
        assert job.slurm("submit", "--dry-run", slurm_mem="1700M", slurm_max_mem="4G", max_steps=2) == 0
        assert f"--mem={given[-1]}M" in job.output
