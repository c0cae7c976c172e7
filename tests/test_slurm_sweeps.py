"""Sweeps on a real Slurm: each element is stopped, killed, cancelled and resumed on its own, and none is started twice."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cluster import Cluster, running_cluster
from jobs import INTERVAL, LOGGED, ON_SLURM, Job, SlurmJob, resting_together, small_settings

from job.rundir.directory import RunDir
from job.rundir.status import read_status
from job.rundir.sweep import Sweep, SweepDir

STEPS = 300


class SweepOnCluster:
    """A sweep over seeds, and each of its runs."""

    def __init__(self, folder: Path, cluster: Cluster, **changes: object) -> None:
        self._folder, self._cluster = folder, cluster
        self._changes: dict[str, object] = {"max_steps": STEPS, **changes}
        self.base = SlurmJob(folder, cluster, **self._changes)
        self.dir = SweepDir.named(folder / "runs", "small")

    def submit(self, seeds: str, *arguments: str, code: int = 0, **changes: object) -> str:
        """Submit it; returns what was printed."""
        assert self.base.slurm("submit", "--sweep", f"seed={seeds}", *arguments, **changes) == code, self.base.output
        return self.base.output

    def run(self, seed: int) -> SlurmJob:
        """One of its runs."""
        job = SlurmJob(self._folder, self._cluster, **self._changes, seed=seed)
        job.run_dir = RunDir(self._folder / "runs" / f"small--seed={seed}")
        return job

    def alone(self, seed: int) -> Job:
        """The same run, trained alone and not interrupted."""
        settings = small_settings(**{**ON_SLURM, **self._changes, "seed": seed})
        job = Job(self._folder / "alone", settings | {"AAE_RUN_NAME": f"small--seed={seed}"}, f"small--seed={seed}")
        assert job.run() == 0, job.output
        return job

    @property
    def content(self) -> Sweep:
        """sweep.json."""
        sweep = self.dir.read()
        assert sweep is not None
        return sweep

    def jobs(self) -> list[str]:
        """The ids of all jobs in the queue that wait or run."""
        return self._cluster.ask("squeue", "-r", "-h", "-o", "%i").split()

    def states(self) -> dict[str, str]:
        """The state of each run as `status` shows it."""
        self.base.slurm("status", "small", "--json")
        return {one["run"].removeprefix("small--seed="): one["state"] for one in orjson.loads(self.base.output)}

    def wait_for(self, *states: str) -> None:
        """Wait until its runs are in these states, and are shown so."""
        deadline = time.monotonic() + 200
        names = [element.run for element in self.content.elements]
        while sorted(found := [self._stored(name) for name in names]) != sorted(states):
            printed = "\n".join(path.read_text()[-2000:] for path in sorted(self.dir.slurm.glob("*_log.out")))
            assert time.monotonic() < deadline, f"{found}\n{self.jobs()}\n{printed}"
            time.sleep(0.2)
        assert sorted(self.states().values()) == sorted(states)

    def _stored(self, name: str) -> str:
        status = read_status(RunDir(self._folder / "runs" / name))
        return status.state if status is not None else "none"


@pytest.fixture
def sweep(tmp_path: Path, cluster: Cluster) -> Iterator[SweepOnCluster]:
    """A sweep of short runs; what is left of it is cancelled at the end."""
    yield SweepOnCluster(tmp_path, cluster)
    cluster.clear()


@pytest.fixture
def endless(tmp_path: Path, cluster: Cluster) -> Iterator[SweepOnCluster]:
    """A sweep of runs that do not end by themselves."""
    yield SweepOnCluster(tmp_path, cluster, max_steps=10**6)
    cluster.clear()


def _sbatch_first_on_path(folder: Path, script: str) -> str:
    """A PATH on which a script stands for sbatch; SBATCH in it is the real one."""
    real = shutil.which("sbatch")
    assert real is not None
    sbatch = folder / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/bash\n" + script.replace('SBATCH "$@"', f'{real} "$@"'))
    sbatch.chmod(0o755)
    return f"{sbatch.parent}:{os.environ['PATH']}"


@pytest.mark.waits(35)
@pytest.mark.timeout(900)
def test_each_element_ends_and_comes_back_on_its_own(sweep: SweepOnCluster, cluster: Cluster) -> None:
    """One killed, one preempted, one cancelled, and the one that bears the array's number signalled; two at a time.

    The same command then sends the cancelled one alone, and all end with the bytes of the same runs alone.
    """
    dry = sweep.submit("0..4", "--parallel", "2", "--dry-run")
    assert not sweep.dir.runs_dir.exists()
    said = sweep.submit("0..4", "--parallel", "2")
    assert "5  submitted as array" in said
    (array,) = sweep.content.arrays
    sent = cluster.ask("scontrol", "write", "batch_script", str(array.job_id), "-")
    assert dry[dry.index("#!/bin/bash") :].strip().startswith(sent)
    with resting_together([sweep.run(0), sweep.run(1)], LOGGED, until_signalled=True):
        cluster.ask("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    cancelled, bearer = sweep.run(3), sweep.run(4)
    with resting_together([sweep.run(2), cancelled], INTERVAL + LOGGED) as (killed, _):
        os.kill(killed, signal.SIGKILL)
        cancelling = cancelled.start("cancel", "small--seed=3", module="slurm")
        with bearer.resting_at(LOGGED, until_signalled=True):
            assert cancelled.wait(cancelling) == 0, cancelled.output
            assert cluster.ask("squeue", "-h", "-j", f"{array.job_id}_4", "-o", "%A") == array.job_id
            cluster.ask("scancel", "--signal=USR2", f"{array.job_id}_4")
    sweep.wait_for("cancelled", *4 * ["finished"])
    assert [sweep.run(seed).reasons() for seed in (0, 1)] == 2 * [["requeue"]]
    assert [record["previous"] for record in sweep.run(2).events("resumed")] == ["was killed"]
    assert (cancelled.reasons(), bearer.reasons()) == (["cancel"], ["time_limit"])
    assert {sweep.run(seed).status()["job_id"] for seed in range(5)} == {f"{array.job_id}_{task}" for task in range(5)}

    assert "1  submitted as array" in sweep.submit("0..4", "--parallel", "2")
    assert [array.indices for array in sweep.content.arrays] == [[0, 1, 2, 3, 4], [3]]
    sweep.wait_for(*5 * ["finished"])
    for seed in range(5):
        assert sweep.run(seed).traces() == sweep.alone(seed).traces()
    assert "5  finished already" in sweep.submit("0..4")
    assert sweep.jobs() == []
    folded = sweep.base
    assert folded.slurm("status") == 0
    assert [line for line in folded.output.splitlines() if line.endswith(" small")] == [folded.output.splitlines()[1]]
    assert "5 finished" in folded.output


def test_no_run_gets_a_second_job(endless: SweepOnCluster, cluster: Cluster) -> None:
    """While a sweep waits or runs: the same command, from two shells at once, a run of it alone, and another sweep with it."""
    shells = [endless.base.start("submit", "--sweep", "seed=0..2", "--parallel", "1", module="slurm") for _ in range(2)]
    said = [shell.communicate()[0] for shell in shells]
    assert sum("3  submitted as array" in words for words in said) == 1, said
    assert sum("3  queued or running already" in words for words in said) == 1, said
    with endless.run(0).resting_at(LOGGED):
        jobs = endless.jobs()
        assert len(jobs) == 3
        alone = endless.run(2)
        assert alone.slurm("submit", run_name="small--seed=2") == 0, alone.output
        assert f"it has already    job {endless.content.arrays[0].job_id}_2 (PENDING)" in alone.output
        # What waits follows another throttle, and what is added waits for what runs, since the two together are one sweep.
        assert "at most 2 at once" in endless.submit("0..3", "--parallel", "2")
        waiting = f"{endless.content.arrays[0].job_id}_2"
        assert "ArrayTaskThrottle=2" in cluster.ask("scontrol", "show", "job", waiting)
        with endless.run(1).resting_at(LOGGED):
            assert endless.run(3).shown()["state"] == "submitted"
            assert endless.base.slurm("cancel", "small") == 0, endless.base.output
    assert endless.jobs() == []
    assert set(endless.states().values()) == {"cancelled"}


def test_runs_of_two_sweeps_are_trained_once(tmp_path: Path, cluster: Cluster) -> None:
    """Runs under their default names: one that waits as an element of a sweep is not sent by another, nor alone."""
    settings = {key: value for key, value in small_settings(**ON_SLURM, slurm_gpus=0).items() if key != "AAE_RUN_NAME"}
    job = SlurmJob(tmp_path, cluster)
    job.environment = {k: v for k, v in job.environment.items() if k != "AAE_RUN_NAME"} | settings
    try:
        assert job.slurm("submit", "--sweep", "seed=0..2", "--json", slurm_extra='{"hold": true}') == 0, job.output
        first = orjson.loads(job.output)
        assert job.slurm("submit", "--sweep", "seed=1..3", "--json", slurm_extra='{"hold": true}') == 0, job.output
        second = orjson.loads(job.output)
        assert [(told["num_live"], told["num_submitted"]) for told in (first, second)] == [(0, 3), (2, 1)]
        assert job.slurm("submit", "--json", seed=2) == 0
        alone = orjson.loads(job.output)
        assert (alone["job_id"], alone["is_new"]) == (first["runs"][2]["job_id"], False)
        assert len(cluster.ask("squeue", "-r", "-h", "-o", "%i").split()) == 4
        job.slurm("status", "--json")
        shown = orjson.loads(job.output)
        newest = {one["run"]: one["sweep"] for one in shown}
        assert [newest[told["run"]] for told in first["runs"]] == [first["sweep"], *2 * [second["sweep"]]]
        assert all(one["needs_person"] and one["next"].startswith("scontrol release") for one in shown)
    finally:
        cluster.clear()


@pytest.mark.parametrize("when", ["before sbatch", "after sbatch"])
def test_a_submitter_that_dies_on_the_way_leaves_a_sweep_that_goes_on(
    when: str, sweep: SweepOnCluster, tmp_path: Path
) -> None:
    """Killed between sweep.json and sbatch, or before it reads sbatch's answer: the elements find themselves, each once."""
    sent = 'SBATCH "$@" >/dev/null\n' if when == "after sbatch" else ""
    path = _sbatch_first_on_path(tmp_path, f"{sent}kill -9 $PPID\nsleep 60\n")
    environment = sweep.base.environment | {"PATH": path}
    command = [sys.executable, "-P", "-m", "slurm", "submit", "--sweep", "seed=0"]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [array.job_id for array in sweep.content.arrays] == [None]
    begun = sweep.run(0).resting_at(LOGGED) if when == "after sbatch" else contextlib.nullcontext()
    with begun:  # before anybody has looked
        said = sweep.submit("0")
    assert ("1  submitted as array" in said) == (when == "before sbatch"), said
    sweep.wait_for("finished")
    assert [array.job_id is not None for array in sweep.content.arrays] == [True]
    assert sweep.run(0).status()["segment"] == 1


@pytest.mark.slurm
def test_a_sweep_longer_than_an_array_may_be_is_several(tmp_path: Path) -> None:
    """With MaxArraySize=2: three elements in two arrays, the second after the first where one at a time is asked for."""
    with running_cluster(extra="MaxArraySize=2") as cluster:
        sweep = SweepOnCluster(tmp_path, cluster, max_steps=20)
        later: dict[str, Any] = {"run_name": "later", "slurm_extra": '{"begin": "now+1hour"}'}
        sweep.submit("0..2", **later)
        said = sweep.submit("0..2", "--parallel", "1", **later)
        assert "3  queued or running already" in said
        shown = [cluster.ask("scontrol", "show", "job", "-o", f"{array}_0") for array in (1, 2)]
        assert ["ArrayTaskThrottle=1" in words for words in shown] == [True, True], said
        assert ["afterany:1" in words for words in shown] == [False, True], "each would have one running"
        cluster.clear()
        said = sweep.submit("0..2", "--parallel", "1")
        assert "2  submitted as array" in said
        assert "1  submitted as array" in said
        first, second = sweep.content.arrays
        assert (first.indices, second.indices) == ([0, 1], [2])
        most = 0
        while jobs := cluster.ask("squeue", "-r", "-h", "-o", "%i %T").splitlines():
            most = max(most, sum(line.endswith("RUNNING") for line in jobs))
            time.sleep(0.3)
        assert most == 1
        assert set(sweep.states().values()) == {"finished"}
        assert [sweep.run(seed).status()["job_id"] for seed in (1, 2)] == [f"{first.job_id}_1", f"{second.job_id}_0"]


def test_a_refused_array_leaves_nothing_behind(sweep: SweepOnCluster) -> None:
    """sbatch's own words, and no run, no sweep, no file of it."""
    said = sweep.submit("0..1", code=1, slurm_partition="none_such")
    assert "invalid partition" in said
    assert "not submitted" in said
    left = [path for path in sweep.dir.runs_dir.rglob("*") if path.is_file()]
    assert left == []
    assert not sweep.dir.path.exists()


def test_what_a_user_may_not_queue_at_once_is_told_and_sent_later(
    tmp_path: Path, cluster: Cluster, endless: SweepOnCluster
) -> None:
    """Two jobs at most in the queue, in the words of a cluster with accounting: as many as may be are sent, in several arrays."""
    words = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    endless.base.environment["PATH"] = _sbatch_first_on_path(
        tmp_path,
        "last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' \"$1\")\n"
        "if [ $(($(squeue -r -h | wc -l) + last + 1)) -gt 2 ]; then\n"
        f'  printf "sbatch: error: %s\\n" AssocMaxSubmitJobLimit "{words}" >&2\n'
        "  exit 1\n"
        "fi\n"
        'exec SBATCH "$@"\n',
    )
    said = endless.submit("0..2", code=1, slurm_extra='{"hold": true}')
    assert "1  not submitted" in said
    assert "AssocMaxSubmitJobLimit" in said
    assert [array.indices for array in endless.content.arrays] == [[0], [1]]
    assert len(endless.jobs()) == 2
    assert not endless.run(2).run_dir.path.exists()
    cluster.clear()
    assert "1  not submitted" in endless.submit("0..2", code=1, slurm_extra='{"hold": true}')
