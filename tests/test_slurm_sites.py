"""What shells, sites and their wrappers do around Slurm's commands: the run is still submitted once, and is the right one."""

import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import Job, SlurmJob

from slurm.scheduler.queue import Job as QueuedJob
from slurm.scheduler.reasons import helpless

pytestmark = pytest.mark.timeout(300)


def _wrap_sbatch(job: SlurmJob, folder: Path, pipe: str) -> None:
    """Put a site's own sbatch first on the PATH: the real one with its output changed."""
    folder.mkdir()
    wrapper = folder / "sbatch"
    wrapper.write_text(f'#!/bin/sh\n{shutil.which("sbatch")} "$@" {pipe}\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    job.environment["PATH"] = f"{folder}:{job.environment['PATH']}"


@pytest.mark.parametrize(
    "pipe",
    [
        "| grep -o '[0-9]*$'",
        "| sed '1i You have job 3 of 10, and job 99 in line'",
        "| sed 's/.*/Thank you for computing with us./'",
        "2>&1; echo 'sbatch: warning: job 7 is old' >&2",
    ],
)
def test_a_site_s_own_sbatch_is_understood_or_the_queue_is_asked(pipe: str, job: SlurmJob, tmp_path: Path) -> None:
    """A bare number, a banner with other numbers, no number at all, a warning: the job is known and nothing is put back."""
    _wrap_sbatch(job, tmp_path / "bin", pipe)
    held = '{"begin": "now+1hour"}'
    job_id = job.submit(slurm_extra=held)
    assert job.cluster.ask("squeue", "-h", "-o", "%A") == job_id
    assert job.run_dir.settings_file.exists()
    assert job.submit(slurm_extra=held) == job_id
    assert "it has already" in job.output


def test_filters_of_the_shell_hide_no_job(job: SlurmJob) -> None:
    """SQUEUE_* and their like bend nothing that is read, and what sbatch would have heeded is said."""
    held = '{"begin": "now+1hour"}'
    job_id = job.submit(slurm_extra=held)
    job.environment |= {
        "SQUEUE_PARTITION": "high",
        "SQUEUE_STATES": "COMPLETED",
        "SQUEUE_FORMAT": "%i",
        "SQUEUE_SORT": "i",
        "SCANCEL_STATE": "RUNNING",
        "SCANCEL_INTERACTIVE": "1",
        "SLURM_TIME_FORMAT": "relative",
        "SLURM_CLUSTERS": "",
        "SBATCH_ACCOUNT": "physics",
    }
    assert job.submit(slurm_extra=held) == job_id
    assert "SBATCH_ACCOUNT=physics is not heeded; set AAE_SLURM_ACCOUNT" in job.output
    assert job.shown()["state"] == "submitted"
    assert job.slurm("cancel", "small") == 0, job.output
    assert job.cluster.state(job_id) == "CANCELLED"


def test_a_script_whose_variables_were_dropped_on_the_way_is_refused(job: SlurmJob, tmp_path: Path) -> None:
    """Never the run of the defaults instead; a run that is described by flags goes on."""
    flags = shlex.join(
        f"--{name.removeprefix('AAE_').lower().replace('_', '-')}={value}"
        for name, value in job.environment.items()
        if name.startswith("AAE_")
    )
    srun = f"cd {tmp_path}; srun --ntasks=1 --nodes=1 {shlex.quote(sys.executable)} -P -m slurm run"

    def submit(script: str) -> str:
        path = tmp_path / "script.sh"
        path.write_text(f"#!/bin/bash\n#SBATCH --export=NONE --signal=USR2@60 -o {tmp_path}/out\n{script}\n")
        done = subprocess.run(
            ["sbatch", "--parsable", str(path)], env=job.environment, capture_output=True, text=True, check=True
        )
        return job.cluster.wait_for_state(done.stdout.strip(), "COMPLETED", "FAILED")

    assert submit(f"# export AAE_BATCH_SIZE=7\nexport AAE_SEED=3 AAE_HIDDEN_DIM=16\n{srun}") == "FAILED"
    told = (tmp_path / "out").read_text()
    assert "AAE_HIDDEN_DIM, AAE_SEED, which did not arrive here" in told
    assert "AAE_BATCH_SIZE" not in told
    assert "--export=ALL" in told
    assert not (tmp_path / "runs").exists()
    assert submit(f"{srun} {flags}") == "COMPLETED", (tmp_path / "out").read_text()
    assert job.status()["state"] == "finished"


def test_a_pending_job_that_waits_for_nothing_needs_a_person(job: SlurmJob) -> None:
    """Held, and then behind a dependency that has failed: exit code 1, and the command that helps."""
    job_id = job.submit(slurm_extra='{"hold": true}')
    assert job.slurm("status", "small") == 1
    assert f"scontrol release {job_id}" in job.output
    shown = job.shown()
    assert (shown["state"], shown["needs_person"], shown["pending_reason"]) == ("submitted", True, "JobHeldUser")
    assert (shown["pending_category"], shown["estimated_start"]) == ("held", None)
    assert shown["next"] == f"scontrol release {job_id}"
    job.cluster.ask("scancel", job_id)
    failed = job.cluster.ask("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "false")
    job.cluster.wait_for_state(failed, "FAILED")
    job.submit(slurm_extra=f'{{"dependency": "afterok:{failed}"}}')
    job.cluster.ask("scontrol", "reconfigure")
    assert job.slurm("status", "small") == 1
    assert "DependencyNeverSatisfied" in job.output


def test_a_job_that_died_before_the_run_began_says_where_it_printed(job: SlurmJob) -> None:
    """In its setup: status shows its last lines, and the same submit is warned; with another setup it is not."""
    setup = '["echo module: command not found", "exit 1"]'
    job_id = job.submit(slurm_setup=setup)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    assert job.slurm("status", "small") == 1
    for word in (f"job {job_id} ended before the run began", f"{job_id}_0_log.out", "module: command not found"):
        assert word in job.output
    again = job.submit(slurm_setup=setup)
    assert "warning: the last job was the same as this one" in job.output
    job.cluster.wait_for_state(again, "FAILED")
    job.wait_until_finished(job.submit())
    assert "warning" not in job.output


@pytest.mark.parametrize(
    ("state", "reason", "is_stuck"),
    [
        ("PENDING", "JobHeldAdmin", True),
        ("PENDING", "launch failed requeued held", True),
        ("PENDING", "PartitionTimeLimit", True),
        ("PENDING", "BadConstraints", True),
        ("PENDING", "AssocMaxWallDurationPerJobLimit", True),
        ("PENDING", "QOSMaxCpuPerJobLimit", True),
        ("PENDING", "AssocGrpCPUMinutesLimit", True),
        ("PENDING", "AssocGrpBilling", True),
        ("PENDING", "AssocGrpCpuLimit", False),
        ("PENDING", "QOSGrpGRES", False),
        ("PENDING", "QOSMaxJobsPerUserLimit", False),
        ("PENDING", "PartitionDown", False),
        ("PENDING", "Priority", False),
        ("PENDING", "Resources", False),
        ("REQUEUE_HOLD", "None", True),
    ],
)
def test_reasons_that_no_waiting_resolves_are_known(state: str, reason: str, is_stuck: bool) -> None:
    """Limits of one job and spent budgets need a person; limits that others use up wait for them."""
    found = helpless(state, reason)
    assert (found is not None) == is_stuck
    assert found is None or "#" not in found.next, "zsh takes no comment where one types"


def test_a_state_that_is_new_to_us_is_no_end() -> None:
    """Newer releases have more of them."""
    assert QueuedJob("5", "5", "0", "EXPEDITING", "None", "x").is_alive
    assert not QueuedJob("5", "5", "0", "LAUNCH_FAILED", "None", "x").is_alive


# Slurm's commands on a login node before two clusters: the run's job is on `inter` only.
SHIMS = {
    "sbatch": """
echo "$SLURM_CLUSTERS $*" >> $LAB/asked
echo "Submitted batch job 4711 on cluster inter\"""",
    "squeue": """
[ "$SLURM_CLUSTERS" = inter ] || exit 0
echo "CLUSTER: inter"
script=$(ls -a $LAB/runs/small/slurm | grep '\\.sh$' | head -1)
[ -z "$script" ] || [ -e $LAB/ended ] || echo "4711|4711|1795689315|PENDING|Priority|N/A||$LAB/runs/small/slurm/$script"
""",
    "scancel": """
[ "$SLURM_CLUSTERS" = inter ] || { echo "scancel: error: Invalid job id 4711" >&2; exit 1; }
echo "$*" >> $LAB/ended""",
    "srun": "exit 1",
}


@pytest.mark.process
@pytest.mark.parametrize("named", [{"AAE_SLURM_CLUSTER": "inter"}, {"SLURM_CLUSTERS": "inter"}])
def test_a_run_on_another_cluster_is_found_there(named: dict[str, str], tmp_path: Path, small_job: Job) -> None:
    """Submitted once; status and cancel find it without being told again."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in SHIMS.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    job = Job(
        tmp_path / "runs", {**small_job.environment, "LAB": str(tmp_path), "AAE_RUNS_DIR": str(tmp_path / "runs")}
    )
    job.environment["PATH"] = f"{commands}:{job.environment['PATH']}"
    plain = dict(job.environment)
    job.environment |= named
    assert job.slurm("submit") == 0, job.output
    assert "job 4711" in job.output
    assert (tmp_path / "asked").read_text().startswith("inter ")
    assert job.slurm("submit") == 0, job.output
    assert "it has already" in job.output
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    job.environment = plain
    assert job.status()["cluster"] == "inter"
    assert job.slurm("status", "small") == 0, job.output
    assert "4711 on cluster inter waits" in job.output
    assert job.slurm("submit") == 0
    assert "it has already" in job.output
    assert job.slurm("cancel", "small") == 0, job.output
    assert (tmp_path / "ended").read_text() == "4711\n"


@pytest.mark.process
def test_several_clusters_at_once_are_refused(small_job: Job) -> None:
    """A run is on one."""
    small_job.environment["SLURM_CLUSTERS"] = "inter,lab"
    assert small_job.slurm("submit", "--dry-run") == 2
    assert "AAE_SLURM_CLUSTER=inter,lab" in small_job.output
