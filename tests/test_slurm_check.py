"""`aae-slurm check` on a real Slurm: what it reads there, and a job that looks from a node."""

import signal
import time
from typing import Any

import orjson
import pytest
from jobs import SlurmJob


def _check(job: SlurmJob, *arguments: str, **changes: Any) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Its exit code, its lines by their names, and all that it printed as JSON."""
    code = job.slurm("check", "--json", *arguments, **changes)
    told = orjson.loads(job.output[job.output.index("{") :])
    return code, {line["name"]: line for line in told["lines"]}, told


def test_a_real_cluster_is_read_and_left_as_it_is(job: SlurmJob) -> None:
    """Its facts, what sbatch says of the very script, and the plan; no job, no run."""
    code, lines, told = _check(job)
    assert (code, {line["state"] for line in lines.values()} <= {"ok", "warning"}) == (0, True), lines
    assert "at once" in lines["accepted"]["text"]
    assert told["facts"]["config"]["PreemptMode"] == "REQUEUE"
    assert told["facts"]["partitions"]["short"]["max_time_min"] == 5
    assert (told["plan"]["fastest"], told["plan"]["wait_s"]) == (None, 6)
    assert not job.run_dir.path.exists()
    assert job.cluster.ask("squeue", "-h") == ""
    assert job.slurm("submit", "--json") == 0, job.output
    assert orjson.loads(job.output)["plan"] == told["plan"]


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        ({"slurm_partition": "short"}, {"time_limit"}),
        ({"slurm_partition": "nope"}, {"partition", "accepted"}),
        ({"slurm_gpus": "a100:1"}, {"gpus", "accepted"}),
        ({"slurm_cpus_per_task": 65}, {"node", "accepted"}),
        ({"slurm_constraint": "nowhere"}, {"accepted"}),
    ],
)
def test_what_slurm_would_refuse_or_never_start_is_an_error(job: SlurmJob, request_: Any, wrong: set[str]) -> None:
    """Some sbatch refuses; a time limit above the partition's it takes, and the job waits for ever."""
    code, lines, _ = _check(job, **request_)
    assert code == 1
    assert {name for name, line in lines.items() if line["state"] == "error"} == wrong


def test_a_scheduler_that_is_away_is_one_error(job: SlurmJob) -> None:
    """What it alone knows is skipped; what is here is looked at all the same."""
    job.environment["SLURM_CONF"] = "/nowhere/slurm.conf"
    code, lines, _ = _check(job)
    assert (code, lines["scheduler"]["state"], lines["partition"]["state"]) == (1, "error", "skipped")
    assert lines["data_set"]["state"] == "ok"


@pytest.mark.timeout(900)
def test_a_job_looks_from_a_node_and_the_same_command_finds_it_again(job: SlurmJob) -> None:
    """Ctrl-C leaves it in the queue; what it has measured is in the plan."""
    first = job.start("check", "--on-node", module="slurm")
    deadline = time.monotonic() + 60
    while not job.cluster.ask("squeue", "-h", "-o", "%j").startswith("aae-check") and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    assert job.wait(first) == 130, job.output
    assert "stays in the queue" in job.output
    assert job.slurm("check", "--on-node") == 0, job.output
    assert "of an earlier call is" in job.output
    for name in ("files", "python", "exact_resume", "bench"):
        assert f"\nok       {name:<13}" in job.output
    assert "skipped  gpu " in job.output
    assert "as check --on-node on" in job.output
