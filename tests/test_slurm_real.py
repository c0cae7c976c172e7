"""`aae-slurm` on a real Slurm: what is sent and what is refused, plain arrays, GPUs, and users who are not root."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cluster import Cluster
from jobs import IN_AN_HOUR, LOGGED, ON_SLURM, Job, SlurmJob, as_nobody, resting_together, small_settings

from job.proofs.exactness import Traces
from job.rundir.claim import read_segment

pytestmark = pytest.mark.timeout(400)


def _submit_array(tmp_path: Path, cluster: Cluster, elements: str, **changes: object) -> tuple[str, list[SlurmJob]]:
    """An array of three runs, `seed1` to `seed3`, by a script as in the guide; returns its id and the runs."""
    job = SlurmJob(tmp_path, cluster, **changes)
    script = tmp_path / "array.sh"
    script.write_text(
        f"#!/bin/bash\n#SBATCH --requeue --open-mode=append --time=10 --array={elements}\n"
        f"#SBATCH --output={tmp_path}/array.%a.out --signal=USR2@120\n"
        "export AAE_SEED=$SLURM_ARRAY_TASK_ID AAE_RUN_NAME=seed$SLURM_ARRAY_TASK_ID\n"
        f"srun --ntasks=1 --nodes=1 env --block-signal=USR2 {shlex.quote(sys.executable)} -P -m slurm run\n"
    )
    done = subprocess.run(
        ["sbatch", "--parsable", str(script)], env=job.environment, capture_output=True, text=True, check=True
    )
    runs = [SlurmJob(tmp_path, cluster, **changes) for _ in range(3)]
    for seed, run in enumerate(runs, start=1):
        run.run_dir = type(run.run_dir)(job.run_dir.path.parent / f"seed{seed}")
    return done.stdout.strip(), runs


def _bearer(cluster: Cluster, array: str, *, of: int = 3) -> int:
    """The element that bears the array's own number, once all are started."""
    deadline = time.monotonic() + 60
    while True:
        rows = [
            row.split()
            for row in cluster.ask("squeue", "-r", "-h", "-t", "all", "-j", array, "-o", "%K %A %T").splitlines()
        ]
        if len([row for row in rows if row[2] != "PENDING"]) == of:
            return next(int(task) for task, number, _ in rows if number == array)
        assert time.monotonic() < deadline, rows
        time.sleep(0.2)


def _wait_until(met: Callable[[], bool], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.waits(25)
def test_elements_of_a_plain_array_are_runs_of_their_own(tmp_path: Path, cluster: Cluster) -> None:
    """Two at a time. The element whose number is the array's is requeued alone; one that waits for its turn again and is cancelled
    stays so; another trains on meanwhile, and ends by a scancel of its own.
    """
    array, runs = _submit_array(tmp_path, cluster, "1-3%2", max_steps=400)
    try:
        with resting_together(runs[:2], LOGGED):
            cluster.ask("scontrol", "requeue", f"{array}_1")
            with runs[2].resting_at(LOGGED):
                assert cluster.state(f"{array}_1") == "PENDING"
                assert _bearer(cluster, array, of=2) == 3
                assert runs[0].slurm("cancel", "seed1") == 0, runs[0].output
                cluster.ask("scancel", "--signal=USR2", f"{array}_3")
            with runs[1].resting_at(LOGGED):
                _wait_until(lambda: runs[2].status()["state"] == "finished")
                assert cluster.state(f"{array}_2") == "RUNNING"
                cluster.ask("scancel", f"{array}_2")
        _wait_until(lambda: runs[1].status()["state"] == "cancelled")
        assert [run.reasons() for run in runs] == [["requeue"], ["cancel"], ["time_limit"]]
        assert cluster.wait_for_state(f"{array}_2", "CANCELLED") == cluster.state(f"{array}_1")
        assert runs[2].status()["job_id"] == f"{array}_3"
    finally:
        cluster.clear()
    settings = small_settings(**{**ON_SLURM, "max_steps": 400, "seed": 3, "run_name": "seed3"})
    whole = Job(tmp_path / "whole", settings, "seed3")
    assert whole.run() == 0
    assert runs[2].traces() == whole.traces()


def test_a_dry_run_is_what_is_sent_and_nothing_is_written(job: SlurmJob, cluster: Cluster) -> None:
    """Byte for byte what Slurm keeps of the script, an enclosing allocation's variables notwithstanding."""
    job.environment |= {
        "SLURM_JOB_ID": "999",
        "SLURM_CPUS_PER_TASK": "1",
        "SBATCH_PARTITION": "high",
        "SLURM_CPU_BIND": "x",
    }
    changes = {"slurm_setup": '["module() { :; }", "module load \'a b\'"]', "slurm_extra": '{"nice": 7, "hold": true}'}
    assert job.slurm("submit", "--dry-run", **changes) == 0
    dry = job.output
    assert job.slurm("submit", "--dry-run", "--json", **changes) == 0
    told = job.output[job.output.index("{") :]
    assert orjson.loads(told) == {"run": "small", "run_dir": str(job.run_dir.path), "script": dry}
    assert not job.run_dir.path.exists()
    assert job.slurm("submit", "--json", **changes) == 0
    told = orjson.loads(job.output[job.output.index("{") :])
    assert (told["state"], told["is_new"], told["cluster"]) == ("submitted", True, None)
    job_id = job.submit(**changes)
    assert job_id == told["job_id"]
    assert cluster.ask("scontrol", "write", "batch_script", job_id, "-") == dry.strip()
    assert cluster.ask("squeue", "-h", "-j", job_id, "-o", "%P") == "low"
    for word in ("--requeue", "--signal=USR2@120", "--time=1440", "--nice=7", "srun", "--cpus-per-task=2", "-P"):
        assert word in dry


def test_an_allocation_with_a_gpu_needs_torch_to_see_it(job: SlurmJob, cluster: Cluster) -> None:
    """The GPU asked for reaches the job; where torch cannot use it on two nodes the run ends with exit code 3 and what to check."""
    setup = f'["env > {job.run_dir.path}/slurm/environment"]'
    job_id = job.submit(slurm_gpus=1, device="auto", slurm_setup=setup)
    assert cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    assert "CUDA_VISIBLE_DEVICES=0" in (job.run_dir.slurm / "environment").read_text()
    assert (job.status()["state"], job.status()["exit_code"], job.status()["reason"]) == ("failed", 3, "no_gpu")
    nodes = [segment.owner.node for number in (1, 2) if (segment := read_segment(job.run_dir, number)) is not None]
    assert sorted(node or "" for node in nodes) == ["n1", "n2"]
    assert job.status()["avoided_nodes"] == nodes[:1]
    assert "AAE_DEVICE=cpu" in job.job_log()
    assert job.slurm("status", "small") == 1


def test_the_same_run_submitted_twice_at_once_is_one_job(job: SlurmJob, cluster: Cluster) -> None:
    """Three shells, one command, one job; all are told which."""
    shells = [job.start("submit", module="slurm", slurm_extra=IN_AN_HOUR) for _ in range(3)]
    outputs = []
    for process in shells:
        assert job.wait(process) == 0, job.output
        outputs.append(job.output)
    ids = {re.search(r"job (\d+)", output)[1] for output in outputs}  # type: ignore[index]
    assert len(ids) == 1
    assert cluster.ask("squeue", "-h", "-o", "%A").split() == list(ids)


def test_what_sbatch_refuses_is_told_in_its_words_and_leaves_nothing(job: SlurmJob) -> None:
    """No such partition: sbatch's own message, what it likely means, exit code 1, no directory."""
    assert job.slurm("submit", slurm_partition="nowhere") == 1
    for word in ("invalid partition specified: nowhere", "AAE_SLURM_PARTITION"):
        assert word in job.output
    assert "Traceback" not in job.output
    assert not job.run_dir.path.exists()
    job_id = job.submit(slurm_extra=IN_AN_HOUR)
    job.cluster.ask("scancel", job_id)
    kept = job.run_dir.status_file.read_bytes()
    assert job.slurm("submit", slurm_partition="nowhere") == 1
    assert job.run_dir.status_file.read_bytes() == kept


def test_mistakes_are_refused_before_anything_is_written_or_queued(job: SlurmJob, cluster: Cluster) -> None:
    """Both mistakes at once, exit code 2, no file, no job."""
    job.environment["AAE_BATCHSIZE"] = "10"
    assert job.slurm("submit", latent_dim=0, slurm_time="0", slurm_signal_delay_s=3) == 2
    for word in ("AAE_BATCH_SIZE?", "AAE_LATENT_DIM=0", "AAE_SLURM_TIME=0", "AAE_SLURM_SIGNAL_DELAY_S=3"):
        assert word in job.output
    assert not job.run_dir.path.parent.exists()
    assert cluster.ask("squeue", "-h") == ""


@pytest.mark.waits(28)
def test_a_node_that_kills_a_run_twice_is_avoided_until_a_checkpoint(cluster: Cluster, whole: Traces) -> None:
    """By an ordinary user's own job, from submit to end: started on the other node, said; later restarts may go anywhere again."""
    with as_nobody(cluster) as (job, submit):
        folder = job.run_dir.path.parent.parent
        (folder / "sitecustomize.py").write_text(
            "import os, sys\n"
            "if os.environ.get('SLURMD_NODENAME') == 'n1' and 'submitit.core._submit' in sys.orig_argv:\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        job_id = submit({"AAE_SLURM_SETUP": f'["export PYTHONPATH={folder}:$PYTHONPATH"]'})
        with job.resting_at(150, segment=3):
            assert job.status()["avoided_nodes"] == ["n1"]
            assert "ExcNodeList=n1" in cluster.ask("scontrol", "show", "job", job_id)
            cluster.ask("scancel", "--signal=USR2", job_id)
        cluster.wait_for_state(job_id, "PENDING")
        assert "ExcNodeList=(null)" in cluster.ask("scontrol", "show", "job", job_id)
        assert job.status()["avoided_nodes"] == []
        assert "not on node n1" in job.job_log()
        cluster.ask("scontrol", "update", f"JobId={job_id}", "ExcNodeList=n1")
        job.wait_until_finished(job_id)
        assert job.reasons() == ["time_limit"]
        assert job.run_dir.final_weights.stat().st_uid == job.run_dir.path.parent.stat().st_uid != 0
        assert job.traces() == whole
