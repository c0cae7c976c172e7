"""What a segment cannot end by itself, on a real Slurm: kills, lost nodes, an absent controller, too little memory."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from cluster import Cluster, parent_of, sleeps
from jobs import INTERVAL, LOGGED, SlurmJob, as_nobody

from job.proofs.exactness import Traces
from job.rundir.cancel import CancelMark
from job.rundir.claim import read_segment
from job.rundir.status import now

pytestmark = pytest.mark.timeout(400)


def test_a_killed_process_comes_back_by_itself(job: SlurmJob, whole: Traces) -> None:
    """SIGKILL from outside, twice: on record each time, started again by the batch script, at most one interval lost."""
    job_id = job.submit()
    for segment in (1, 2):
        with job.resting_at(segment * (INTERVAL + LOGGED), segment) as process:
            os.kill(process, signal.SIGKILL)
    job.wait_until_finished(job_id)
    failed = job.events("failed")
    assert [(record["reason"], record["exit_code"], record["segment"]) for record in failed] == [
        ("killed", 137, 1),
        ("killed", 137, 2),
    ]
    assert "SIGKILL" in failed[0]["error"]
    assert failed[0]["peak_memory_bytes"] > 2**26
    resumed = job.events("resumed")
    assert [record["previous"] for record in resumed] == ["was killed", "was killed"]
    assert all(0 <= record["steps_lost"] <= INTERVAL + LOGGED for record in resumed)  # 0 just after a checkpoint
    assert all(record["seconds_lost"] >= 0 for record in resumed)
    assert job.traces() == whole


def test_kills_that_leave_no_progress_end_the_run_and_a_submit_sets_that_aside(job: SlurmJob, whole: Traces) -> None:
    """Three in a row without a new checkpoint: a verdict, exit code 3, job FAILED; a person's submit tries again."""
    rarely = {"checkpoint_every_steps": 10**6}
    job_id = job.submit(**rarely)
    for segment in (1, 2, 3):
        with job.resting_at(20, segment) as process:
            os.kill(process, signal.SIGKILL)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    status = job.status()
    assert (status["state"], status["exit_code"], status["reason"]) == ("failed", 3, "killed")
    assert "3 segments in a row" in status["verdict"]
    assert "submit the run again" in status["verdict"]
    assert [record["event"] for record in status["crash"]["last_records"]]
    assert job.slurm("status", "small") == 1
    time.sleep(7)  # longer than a requeue takes
    assert job.cluster.state(job_id) == "FAILED"
    again = job.submit(**rarely)
    with job.resting_at(20, segment=4) as process:
        os.kill(process, signal.SIGKILL)  # the count has begun anew
    job.wait_until_finished(again)
    assert job.traces() == whole


@pytest.mark.parametrize("victim", ["[^ ]*python[^ ]* -P .*", "srun .*"])
def test_a_process_killed_before_it_could_claim_comes_back(victim: str, job: SlurmJob, whole: Traces) -> None:
    """Death while Python starts, or of srun alone, whose task may come to life behind it: still the run is started again."""
    folder = job.run_dir.slurm
    kill = (
        f"(mkdir {folder}/once && until pkill -KILL -f '^{victim}_submit.{folder}'; do sleep 0.02; done) 2>/dev/null &"
    )
    job_id = job.submit(slurm_setup=f'["{kill}"]')
    job.wait_until_finished(job_id)
    ends = [record["reason"] for record in job.records() if record["event"] in ("failed", "stopped")]
    assert ends[0] in (["killed"] if "python" in victim else ["killed", "requeue"])
    assert job.traces() == whole


def _srun(job: SlurmJob) -> tuple[int, int]:
    """The srun of a running job, and the watchdog that it has forked, which has Slurm kill the task if srun is killed."""
    found = subprocess.run(
        ["pgrep", "-f", f"^srun .*_submit.{job.run_dir.slurm}"], capture_output=True, text=True, check=True
    )
    processes = [int(pid) for pid in found.stdout.split()]
    (watchdog,) = [pid for pid in processes if parent_of(pid) in processes]
    (srun,) = [pid for pid in processes if pid != watchdog]
    return srun, watchdog


def test_the_death_of_srun_costs_at_most_one_interval(job: SlurmJob, whole: Traces) -> None:
    """Its watchdog has Slurm kill the task at once: started again, whether its death or the batch script was quicker."""
    job_id = job.submit()
    with job.resting_at(INTERVAL + LOGGED, until_signalled=True):
        os.kill(_srun(job)[0], signal.SIGKILL)
    job.wait_until_finished(job_id)
    (lost,) = job.lost()
    assert 0 <= lost <= INTERVAL + LOGGED
    ends = [record["reason"] for record in job.records() if record["event"] in ("failed", "stopped")]
    assert ends in (["killed"], ["requeue"])
    assert job.traces() == whole


def test_a_task_that_outlives_srun_and_its_watchdog_loses_nothing(job: SlurmJob, whole: Traces) -> None:
    """Slurm ends it with the batch script, which asks for a requeue: saved, no crash on record, started again."""
    job_id = job.submit()
    with job.resting_at(150, until_signalled=True):
        srun, watchdog = _srun(job)
        os.kill(watchdog, signal.SIGSTOP)  # or it would be quicker than the second SIGKILL
        os.kill(srun, signal.SIGKILL)
        os.kill(watchdog, signal.SIGKILL)
    job.wait_until_finished(job_id)
    assert (job.reasons(), job.events("failed"), job.lost()) == (["requeue"], [], [0])
    assert job.traces() == whole


def test_exceptions_at_one_step_end_the_run_with_their_story(job: SlurmJob) -> None:
    """Too little memory for the networks (a limit set by the batch script): told as that, tried three times, then a verdict."""
    job_id = job.submit(slurm_setup='["ulimit -d 1500000"]', hidden_dim=12000)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED", timeout_s=200) == "FAILED"
    failed = job.events("failed")
    assert [(record["reason"], record["exit_code"]) for record in failed] == [("out_of_memory", 1)] * 3
    status = job.status()
    assert (status["state"], status["exit_code"], status["reason"]) == ("failed", 3, "out_of_memory")
    for word in ("AAE_SLURM_MEM", "AAE_HIDDEN_DIM", "3 segments in a row", "in an exception at step 0"):
        assert word in status["verdict"], status["verdict"]
    assert "ExitCode=3:0" in job.cluster.ask("scontrol", "show", "job", job_id)
    crash = status["crash"]
    assert "load" in crash["traceback"]
    assert crash["host"] == status["host"]
    assert crash["peak_memory_bytes"] > 2**26


def test_an_exception_that_passes_costs_one_more_start(job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """A torch that cannot be loaded at the first start, as while an installation is replaced: on record, and tried again."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('torn installation')\n")
    once = job.run_dir.slurm / "once"
    setup = f"mkdir {once} 2>/dev/null && export PYTHONPATH={tmp_path}:$PYTHONPATH || true"
    job.wait_until_finished(job.submit(slurm_setup=f'["{setup}"]'))
    (failed,) = job.events("failed")
    assert (failed["reason"], failed["exit_code"]) == ("exception", 1)
    assert "torn installation" in failed["traceback"]
    assert [record["previous"] for record in job.events("resumed")] == ["failed (exception)"]
    assert job.traces() == whole


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


def test_a_lost_node_costs_at_most_one_interval(job: SlurmJob, whole: Traces) -> None:
    """slurmd and all processes gone by SIGKILL: Slurm starts the job on the other node, and no allowance is used."""
    job_id = job.submit(slurm_max_stalls=1)
    with job.resting_at(INTERVAL + LOGGED):
        node = job.cluster.ask("squeue", "-h", "-j", job_id, "-o", "%N")
        job.cluster.kill_node(node, job_id)
    try:
        job.wait_until_finished(job_id)
    finally:
        job.cluster.start_node(node)
        job.cluster.wait_until_idle()  # for whoever comes next
    assert job.cluster.ask("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%N") != node
    (resumed,) = job.events("resumed")
    assert "ended by Slurm" in resumed["previous"]
    assert 0 <= resumed["steps_lost"] <= INTERVAL + LOGGED  # 0 just after a checkpoint
    assert job.reasons() == []
    assert job.events("failed") == []
    assert job.traces() == whole


def test_a_requeue_waits_for_an_absent_controller(job: SlurmJob, whole: Traces) -> None:
    """slurmctld stopped while the job wants to be requeued, then started: asked again until it answers."""
    job_id = job.submit()
    with job.resting_at(150) as process:
        job.cluster.stop_controller()
        os.kill(process, signal.SIGUSR2)
    try:
        deadline = time.monotonic() + 120
        while job.status()["state"] != "waiting":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(15)  # scontrol itself tries for ten
    finally:
        job.cluster.start_controller()
    job.wait_until_finished(job_id)
    assert (job.reasons(), job.lost()) == (["time_limit"], [0])
    assert job.traces() == whole


def test_without_scontrol_the_run_waits_for_a_submit(job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """As in a container without Slurm's commands: saved, said, and the same submit command goes on."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("srun", "env", "rm", "cp"):
        (commands / name).symlink_to(shutil.which(name) or "")
    told = tmp_path / "told"
    on_end = f'echo "$AAE_STATE, $AAE_VERDICT" >> {told}'
    job_id = job.submit(slurm_setup=f'["export PATH={commands}"]', on_end=on_end)
    with job.resting_at(150) as process:
        os.kill(process, signal.SIGUSR2)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    shown = job.shown()
    assert (shown["state"], shown["needs_person"]) == ("waiting", True)
    assert "scontrol cannot be run here" in job.status()["verdict"]
    assert told.read_text() == f"waiting, {job.status()['verdict']}\n"
    job.wait_until_finished(job.submit())
    assert job.lost() == [0]
    assert job.traces() == whole


def test_a_submission_that_timed_out_but_reached_slurm_is_found_again(
    job: SlurmJob, whole: Traces, tmp_path: Path
) -> None:
    """sbatch submits and then fails to say so: the queue tells of the job, to this submit and to the next one."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@" >/dev/null\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2\nexit 1\n'
    )
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    path = job.environment["PATH"]
    job.environment["PATH"] = f"{sbatch.parent}:{path}"
    job_id = job.submit()
    job.environment["PATH"] = path
    assert job.submit() == job_id
    assert "it has already" in job.output
    job.wait_until_finished(job_id)
    assert job.traces() == whole
    assert job.events("resumed") == []


def test_three_signals_are_one_stop(job: SlurmJob, whole: Traces) -> None:
    """USR2 three times within a tenth of a second, before, during and after the save: one save, one requeue."""
    job_id = job.submit()
    with job.resting_at(150) as process:
        os.kill(process, signal.SIGUSR2)
    for _ in range(2):
        time.sleep(0.03)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGUSR2)
    job.wait_until_finished(job_id)
    assert (job.reasons(), job.lost()) == (["time_limit"], [0])
    assert job.traces() == whole


def test_two_signals_during_a_save_lose_nothing(job: SlurmJob, whole: Traces) -> None:
    """USR2 and TERM at once while checkpoints are being written most of the time."""
    job_id = job.submit(checkpoint_every_steps=4)
    with job.resting_at(100) as process:
        os.kill(process, signal.SIGUSR2)
        os.kill(process, signal.SIGTERM)
    job.wait_until_finished(job_id)
    assert (job.reasons(), job.lost()) == (["time_limit"], [0])
    assert job.traces() == whole


def test_a_run_that_finishes_while_it_is_preempted_is_not_trained_twice(job: SlurmJob, whole: Traces) -> None:
    """Slurm starts the job again although the run has just finished: it says so, ends well, and nothing changes."""
    job_id = job.submit(on_end="kill -STOP $PPID")  # once its end is on record
    job.wait_until_step(300)
    deadline = time.monotonic() + 150
    while not (job.status()["state"] == "finished" and sleeps(job.process())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = job.run_dir.events_file.read_bytes()
    job.cluster.ask("scontrol", "requeue", job_id)  # Slurm's SIGCONT beside its SIGTERM wakes it
    job.wait_until_finished(job_id)
    assert "finished already" in job.job_log()
    assert job.run_dir.events_file.read_bytes() == before
    assert job.traces() == whole


def test_a_job_that_outgrows_its_memory_is_told_so(tmp_path: Path, memory_cluster: Cluster) -> None:
    """The kernel kills it at a real limit: recognised, tried once more, then a verdict; with more memory it goes on."""
    job = SlurmJob(tmp_path, memory_cluster, hidden_dim=3500, max_steps=1)
    job_id = job.submit(slurm_mem="900M")
    assert memory_cluster.wait_for_state(job_id, "FAILED", "COMPLETED", timeout_s=200) == "FAILED"
    assert [record["reason"] for record in job.events("failed")] == ["out_of_memory"] * 2, job.job_log()
    status = job.status()
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    for word in (
        "more memory than it was given",
        "AAE_SLURM_MEM",
        "2 segments in a row have been killed with the same memory",
    ):
        assert word in status["verdict"]
    job.wait_until_finished(job.submit(slurm_mem="6G"))


def test_a_job_that_outgrows_its_memory_is_given_more(memory_cluster: Cluster) -> None:
    """By an ordinary user's own job: half more, up to AAE_SLURM_MAX_MEM, which the next submit keeps."""
    with as_nobody(memory_cluster, hidden_dim=3500, max_steps=1) as (job, submit):
        more = {"AAE_SLURM_MEM": "1700M", "AAE_SLURM_MAX_MEM": "4G"}
        job_id = submit(more)
        job.wait_until_finished(job_id)
        given = [s.owner.mem_mb for number in range(1, 9) if (s := read_segment(job.run_dir, number)) is not None]
        assert given[0] == 1700
        assert given[1:] == [int(1700 * 1.5**n) for n in range(1, len(given))]
        assert len(given) > 1
        assert [record["reason"] for record in job.events("warning")] == ["more_memory"] * (len(given) - 1)
        assert f"with {given[1]:,} MiB of memory instead of 1,700" in job.job_log()
        assert job.slurm("submit", "--dry-run", slurm_mem="1700M", slurm_max_mem="4G", max_steps=2) == 0
        assert f"--mem={given[-1]}M" in job.output


def test_a_run_killed_while_it_is_being_cancelled_does_not_come_back(job: SlurmJob) -> None:
    """The cancel mark is there and the process dies before it sees it: the batch script does not start it again."""
    job_id = job.submit(max_steps=10**6)
    job.wait_until_step(100)
    CancelMark(job_id=job_id, host=None, pid=None, time=now()).leave(job.run_dir)
    os.kill(job.process(), signal.SIGKILL)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    time.sleep(7)  # longer than a requeue takes
    assert job.cluster.state(job_id) == "FAILED"
    assert job.slurm("cancel", "small") == 0, job.output
    assert job.status()["state"] == "cancelled"
