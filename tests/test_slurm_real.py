"""`aae-slurm` on a real Slurm: each end that a segment can meet, compared byte for byte with an uninterrupted run."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cluster import Cluster
from jobs import LOGGED, ON_SLURM, Job, SlurmJob, as_nobody, resting_together, small_settings

from job.proofs.exactness import Traces
from job.rundir.claim import read_segment
from job.rundir.status import iso

pytestmark = pytest.mark.timeout(400)


def test_a_submitted_run_finishes_and_says_so_everywhere(job: SlurmJob, whole: Traces) -> None:
    """Submit, status, log, collect and a second submit, from the first command to the results."""
    job_id = job.submit()
    for word in (str(job.run_dir.path), f"job {job_id}", "aae-slurm watch", "aae-slurm status", "aae-slurm cancel"):
        assert word in job.output
    with job.resting_at(150):
        shown = job.shown()
    assert (shown["state"], shown["job_id"], shown["needs_person"]) == ("running", job_id, False)
    job.wait_until_finished(job_id)
    assert job.traces() == whole
    assert (job.shown()["state"], job.slurm("status", "small")) == ("finished", 0)
    assert job.slurm("submit") == 0
    assert "finished already" in job.output
    assert job.slurm("submit", "--json") == 0
    told = orjson.loads(job.output)
    assert (told["run_dir"], told["state"], told["is_new"]) == (str(job.run_dir.path), "finished", False)
    assert job.slurm("log", "small", "--event", "step", "--fields", "step,nothing", "--csv") == 0
    assert job.output.splitlines()[:2] == ["step,nothing", "20,"]
    out = job.run_dir.path.parent.parent / "kept"
    assert job.slurm("collect", "small", str(out)) == 0, job.output
    manifest = orjson.loads((out / "small" / "manifest.json").read_bytes())
    assert {
        "weights.safetensors",
        "lattices.gif",
        "report.html",
        "settings.json",
        "metrics.csv",
        "evaluations.csv",
    } <= set(manifest["files"])
    assert len((out / "small" / "metrics.csv").read_text().splitlines()) == 1 + ON_SLURM["max_steps"] // LOGGED


def test_the_clock_ends_segments_and_the_run_goes_on(job: SlurmJob, tmp_path: Path) -> None:
    """Time limits, by Slurm's own clock: the run comes back by itself and ends with the same bytes, no step lost."""
    # Slurm looks every 30 s and signals before it would be too late: 75 to 105 s after the start, when the run trains.
    limited = {"slurm_time": "00:02:00", "slurm_signal_delay_s": 15, "slurm_max_stalls": 99}
    first = job.submit(**limited, max_steps=10**6)
    assert "plan  time unknown" in job.output
    with job.resting_at(100, until_signalled=True):
        pass
    # How far it gets depends on the machine: cut it short there, and compare with a run of that length.
    with job.resting_at(1, segment=2, until_signalled=True):
        kept = job.status()  # for forecasts: the limit of this allocation, and the one wait so far
        assert kept["started_at"] < kept["limit_at"] < iso(time.time() + 121)
        assert [5 < wait_s < 100 for wait_s in kept["waits_s"]] == [True]
        job.cluster.ask("scancel", first)
    job.cluster.wait_for_state(first, "CANCELLED")
    total = job.status()["step"] + 100
    job.wait_until_finished(job.submit(**limited, max_steps=total))
    assert job.reasons()[:2] == ["time_limit", "cancel"]
    assert set(job.reasons()[2:]) <= {"time_limit"}, "a slow machine may meet another limit on the last steps"
    assert set(job.lost()) == {0}
    whole = Job(tmp_path / "whole", small_settings(**{**ON_SLURM, "max_steps": total}))
    assert whole.run() == 0, whole.output
    assert job.traces() == whole.traces()


def _preempt(job: SlurmJob) -> None:
    """Fill both nodes with a job of a higher partition for a moment."""
    job.cluster.ask("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")


@pytest.mark.parametrize("partition", ["low", "grace", "cancel"])
def test_a_preempted_run_saves_and_comes_back(partition: str, job: SlurmJob, whole: Traces) -> None:
    """No step lost: with GraceTime 0 Slurm requeues at once, or cancels and the job has itself requeued; with 20 the job does."""
    job_id = job.submit(slurm_partition=partition)
    with job.resting_at(150, until_signalled=True):
        _preempt(job)
    job.wait_until_finished(job_id)
    # Without a grace time Slurm's view of the job is that of an operator's requeue.
    assert job.reasons() == [{"low": "requeue"}.get(partition, "preemption")]
    assert job.lost() == [0]
    assert job.traces() == whole


@pytest.mark.parametrize("partition", ["low", "grace"])
def test_a_preemption_by_sigusr2_saves_and_comes_back(
    partition: str, tmp_path: Path, signalling_cluster: Cluster, whole: Traces
) -> None:
    """With preempt_send_user_signal: at once, no step lost, and told apart from a time limit."""
    job = SlurmJob(tmp_path, signalling_cluster)
    job_id = job.submit(slurm_partition=partition)
    with job.resting_at(150, until_signalled=True):
        _preempt(job)
    job.wait_until_finished(job_id)
    assert job.reasons() == ["preemption"]
    assert job.lost() == [0]
    assert job.traces() == whole


def test_an_operators_requeue_loses_nothing(job: SlurmJob, whole: Traces) -> None:
    """`scontrol requeue`: SIGTERM, save, leave; Slurm starts the job again. Whoever watches is told of pause and end."""
    job_id = job.submit()
    watching = job.start("watch", job.run_dir.path.name, module="slurm")
    with job.resting_at(150, until_signalled=True):
        job.cluster.ask("scontrol", "requeue", job_id)
    job.wait_until_finished(job_id)
    assert job.wait(watching) == 0, job.output
    for words in (
        "requeued: Slurm starts it again",
        "went on at step",
        f"running, job {job_id}, segment 2",
        "finished, job",
    ):
        assert words in job.output, job.output
    assert (job.reasons(), job.lost()) == (["requeue"], [0])
    assert job.traces() == whole


def test_a_raw_scancel_is_not_undone_and_a_submit_goes_on(job: SlurmJob, whole: Traces) -> None:
    """scancel: saved, cancelled, not resurrected; the same submit command goes on from there."""
    job_id = job.submit()
    with job.resting_at(150, until_signalled=True):
        job.cluster.ask("scancel", job_id)
    assert job.cluster.wait_for_state(job_id, "CANCELLED") == "CANCELLED"
    time.sleep(7)  # longer than a requeue takes
    assert job.cluster.state(job_id) == "CANCELLED"
    assert (job.reasons(), job.shown()["state"]) == (["cancel"], "cancelled")
    second = job.submit()
    assert second != job_id
    job.wait_until_finished(second)
    assert job.lost() == [0]
    assert job.traces() == whole


def test_cancel_ends_a_running_and_a_pending_job(job: SlurmJob, whole: Traces) -> None:
    """`aae-slurm cancel` reports, the state is cancelled, and only a new submit goes on."""
    job_id = job.submit()
    with job.resting_at(150, until_signalled=True):
        cancelling = job.start("cancel", "small", module="slurm")
    assert job.wait(cancelling) == 0, job.output
    assert "cancelled at step" in job.output
    job.cluster.wait_for_state(job_id, "CANCELLED")
    assert job.reasons() == ["cancel"]
    assert job.slurm("cancel", "small") == 0
    assert "already" in job.output
    pending = job.submit(slurm_extra='{"begin": "now+1hour"}')
    assert job.shown()["state"] == "waiting"
    assert job.slurm("cancel", "small") == 0, job.output
    assert (job.cluster.state(pending), job.status()["state"]) == ("CANCELLED", "cancelled")
    job.wait_until_finished(job.submit())
    assert job.traces() == whole


def test_a_signal_during_the_import_of_torch_waits_and_is_served(job: SlurmJob, whole: Traces) -> None:
    """USR2 before any handler could be there neither kills the job nor is lost."""
    job_id = job.submit()
    deadline = time.monotonic() + 150
    while not job.job_log():  # submitit's first line: Python has begun
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not job.events("started")
    job.cluster.ask("scancel", "--signal=USR2", job_id)
    job.wait_until_finished(job_id)
    assert job.reasons() == ["time_limit"]
    assert job.events("stopped")[0]["step"] < ON_SLURM["max_steps"]
    assert job.traces() == whole


def test_a_sigterm_that_is_no_end_costs_nothing(job: SlurmJob, whole: Traces) -> None:
    """SIGTERM by hand: the run saves, asks Slurm, learns that nothing ends, and trains on in the same segment."""
    job_id = job.submit()
    with job.resting_at(150):
        job.cluster.ask("scancel", "--signal=TERM", job_id)
    job.wait_until_finished(job_id)
    assert [record["signal"] for record in job.events("signal")] == ["SIGTERM"]
    assert (job.reasons(), job.lost()) == ([], [])
    assert job.traces() == whole


@pytest.mark.parametrize(("name", "exit_code"), [("HUP", 75), ("USR1", 75), ("INT", 130)])
def test_other_signals_leave_the_run_waiting(name: str, exit_code: int, job: SlurmJob) -> None:
    """Whoever sends these by hand wants it to stop: saved, waiting, not started again, and status says so."""
    job_id = job.submit()
    with job.resting_at(150):
        job.cluster.ask("scancel", f"--signal={name}", job_id)
    assert job.cluster.wait_for_state(job_id, "FAILED", "COMPLETED") == "FAILED"
    status = job.status()
    assert (status["state"], status["exit_code"], job.lost()) == ("waiting", exit_code, [])
    assert job.events("checkpoint")[-1]["step"] == status["step"]
    shown = job.shown()
    assert (shown["state"], shown["needs_person"]) == ("waiting", True)


@pytest.mark.parametrize("knows_its_end", [True, False])
def test_a_time_limit_without_a_signal_before_it_loses_nothing(
    knows_its_end: bool, job: SlurmJob, tmp_path: Path
) -> None:
    """The job's own clock is first; where even that is misled, Slurm's SIGTERM at the limit still leaves time to save."""
    sbatch = tmp_path / "bin" / "sbatch"  # a site's own, which takes the signal away
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/sh\nsed -i "s/^#SBATCH --signal=.*/#SBATCH --signal=URG@1/" "$1"\n{shutil.which("sbatch")} "$1"\n'
    )
    sbatch.chmod(0o755)
    job.environment["PATH"] = f"{sbatch.parent}:{job.environment['PATH']}"
    scontrol = tmp_path / "misled" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\n{shutil.which("scontrol")} "$@" | sed "s/EndTime=[0-9]*/EndTime=99999999999/"\n')
    scontrol.chmod(0o755)
    job_id = job.submit(
        slurm_time="00:01:00",
        slurm_signal_delay_s=30,
        slurm_setup="[]" if knows_its_end else f'["export PATH={scontrol.parent}:$PATH"]',
        max_steps=10**6,
    )
    with job.resting_at(100, until_signalled=not knows_its_end):
        while knows_its_end and job.cluster.ask("squeue", "-h", "-j", job_id, "-o", "%L") > "0:20":
            time.sleep(0.5)
    job.wait_until_step(1, segment=2)
    assert (job.reasons(), job.lost()) == (["time_limit"], [0])
    # On a busy machine the first may be served before Slurm says that the job is ending; it sends another.
    assert {record["signal"] for record in job.events("signal")} == (set() if knows_its_end else {"SIGTERM"})
    job.cluster.ask("scancel", job_id)


def _readme_scripts() -> list[str]:
    readme = (Path(__file__).parent.parent / "slurm" / "README.md").read_text()
    return re.findall(r"```bash\n(#!/bin/bash\n.*?)```", readme, re.DOTALL)


@pytest.mark.parametrize("form", ["srun", "exec"])
def test_a_plain_batch_script_does_the_same(form: str, job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """Both scripts of the guide, with `aae-slurm run` in them, survive a USR2 and finish with the same bytes."""
    script = tmp_path / "train.sh"
    (text,) = [text for text in _readme_scripts() if re.search(rf"^{form} ", text, re.MULTILINE)]
    assert len(text.splitlines()) < 10
    text = text.replace(".venv/bin/aae-slurm", f"{shlex.quote(sys.executable)} -P -m slurm")
    text = re.sub(r"^export .*\n", "", text, flags=re.MULTILINE)  # this run's settings instead of the example's
    script.write_text(text.replace("#SBATCH", f"#SBATCH --output={tmp_path}/job.out", 1))
    done = subprocess.run(
        ["sbatch", "--parsable", str(script)], env=job.environment, capture_output=True, text=True, check=True
    )
    job_id = done.stdout.strip()
    with job.resting_at(150):
        job.cluster.ask("scancel", *(["--batch"] if form == "exec" else []), "--signal=USR2", job_id)
    job.wait_until_finished(job_id)
    assert (job.reasons(), job.lost()) == (["time_limit"], [0])
    assert job.traces() == whole
    assert "asks for no signal" not in (tmp_path / "job.out").read_text()


def test_a_whole_node_trains_the_run_once(job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """Where srun would start a task for each half of the node: one copy after submit, and one in a step of two tasks."""
    whole_node = {"slurm_cpus_per_task": 32, "slurm_extra": '{"exclusive": true}'}
    probe = (
        "sbatch",
        "--wait",
        "-N1",
        "-c32",
        "--exclusive",
        "-o",
        str(tmp_path / "probe"),
        "-e",
        "/dev/null",
        "--wrap",
        "srun -c32 true; srun -c32 hostname",
    )
    job.cluster.ask(*probe)
    assert len((tmp_path / "probe").read_text().split()) == 2
    job.wait_until_finished(job.submit(**whole_node))
    assert len(list(job.run_dir.slurm.glob("*.out"))) == 1
    assert job.traces() == whole
    other = SlurmJob(tmp_path / "plain", job.cluster)
    command = f"srun --ntasks=2 {shlex.quote(sys.executable)} -P -m slurm run"
    done = subprocess.run(
        ["sbatch", "--parsable", "-n2", "-o", str(tmp_path / "plain.out"), "--wrap", command],
        env=other.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    other.wait_until_finished(done.stdout.strip())
    assert "this is task 1: nothing to do" in (tmp_path / "plain.out").read_text()
    assert (other.lost(), other.traces()) == ([], whole)


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


def test_elements_of_a_plain_array_are_runs_of_their_own(tmp_path: Path, cluster: Cluster) -> None:
    """The element whose number is the array's is requeued alone: a sibling that was cancelled stays so, another trains on."""
    array, runs = _submit_array(tmp_path, cluster, "1-3", max_steps=400)
    with resting_together(runs, 20):
        element = _bearer(cluster, array)
        cancelled, sibling = {1, 2, 3} - {element}
        cluster.ask("scancel", f"{array}_{cancelled}")
        _wait_until(lambda: runs[cancelled - 1].status()["state"] == "cancelled")
        cluster.ask("scancel", "--signal=USR2", f"{array}_{element}")
    _wait_until(lambda: {runs[n - 1].status()["state"] for n in (element, sibling)} == {"finished"})
    assert runs[element - 1].status()["job_id"] == f"{array}_{element}"
    assert [runs[n - 1].reasons() for n in (element, sibling, cancelled)] == [["time_limit"], [], ["cancel"]]
    assert cluster.state(f"{array}_{cancelled}") == "CANCELLED"
    for seed in (element, sibling):
        settings = small_settings(**{**ON_SLURM, "max_steps": 400, "seed": seed, "run_name": f"seed{seed}"})
        whole = Job(tmp_path / "whole", settings, f"seed{seed}")
        assert whole.run() == 0
        assert runs[seed - 1].traces() == whole.traces()


def test_cancel_of_an_element_leaves_its_siblings_alone(tmp_path: Path, cluster: Cluster) -> None:
    """Running, or requeued and waiting for its turn behind `%`: that element ends, and no other."""
    array, runs = _submit_array(tmp_path, cluster, "1-3%2", max_steps=10**6)
    try:
        with resting_together(runs[:2], 20):
            cluster.ask("scontrol", "requeue", f"{array}_1")
            with runs[2].resting_at(20, until_signalled=True):
                assert cluster.state(f"{array}_1") == "PENDING"
                assert _bearer(cluster, array, of=2) == 3
                assert runs[0].slurm("cancel", "seed1") == 0, runs[0].output
                assert cluster.state(f"{array}_1") == "CANCELLED"
                cancelling = runs[2].start("cancel", "seed3", module="slurm")
            assert runs[2].wait(cancelling) == 0, runs[2].output
            assert [run.status()["state"] for run in runs] == ["cancelled", "running", "cancelled"]
            assert cluster.state(f"{array}_2") == "RUNNING"
    finally:
        cluster.clear()


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
    """Two shells, one command, one job; both are told which."""
    both = [job.start("submit", module="slurm", max_steps=10**6) for _ in range(3)]
    outputs = []
    for process in both:
        assert job.wait(process) == 0, job.output
        outputs.append(job.output)
    ids = {re.search(r"job (\d+)", output)[1] for output in outputs}  # type: ignore[index]
    assert len(ids) == 1
    assert cluster.ask("squeue", "-h", "-o", "%A").split() == list(ids)


def test_awkward_paths_reach_the_node(tmp_path: Path, cluster: Cluster) -> None:
    """Spaces, quotes, dollars, a leading dash and non-ASCII letters in AAE_RUNS_DIR survive sbatch, srun and submitit."""
    folder = tmp_path / "-dash, space, quote'\"$HOME`x` üñï;b&c|d"
    folder.mkdir()
    job = SlurmJob(folder, cluster, max_steps=200)
    job.wait_until_finished(job.submit())


def test_what_sbatch_refuses_is_told_in_its_words_and_leaves_nothing(job: SlurmJob) -> None:
    """No such partition: sbatch's own message, what it likely means, exit code 1, no directory."""
    assert job.slurm("submit", slurm_partition="nowhere") == 1
    for word in ("invalid partition specified: nowhere", "AAE_SLURM_PARTITION"):
        assert word in job.output
    assert "Traceback" not in job.output
    assert not job.run_dir.path.exists()
    job_id = job.submit()
    with job.resting_at(50, until_signalled=True):
        job.cluster.ask("scancel", job_id)
    job.cluster.wait_for_state(job_id, "CANCELLED")
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


def test_a_user_who_is_not_root_can_submit_and_is_requeued(cluster: Cluster) -> None:
    """The whole way, with a requeue by the job itself, as an ordinary user."""
    with as_nobody(cluster) as (job, submit):
        job_id = submit({})
        with job.resting_at(150):
            cluster.ask("scancel", "--signal=USR2", job_id)
        job.wait_until_finished(job_id)
        assert job.reasons() == ["time_limit"]
        assert job.run_dir.final_weights.stat().st_uid == job.run_dir.path.parent.stat().st_uid != 0


def test_a_node_that_kills_a_run_twice_is_avoided_until_a_checkpoint(cluster: Cluster, whole: Traces) -> None:
    """By an ordinary user's own job: started on the other node, said; later restarts may go anywhere again."""
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
        assert job.traces() == whole


def test_status_stands_without_the_scheduler(job: SlurmJob, tmp_path: Path) -> None:
    """With no controller to ask, the run directory tells what it knows, within seconds, and says so."""
    job.submit()
    with job.resting_at(50):
        job.environment["SLURM_CONF"] = str(tmp_path / "no-such.conf")
        began = time.monotonic()
        assert job.slurm("status", "small") == 0, job.output
        assert time.monotonic() - began < 20  # on a busy machine a command takes some seconds to start
    assert "running" in job.output
    assert "squeue does not answer" in job.output
