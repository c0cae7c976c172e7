"""What is different from where a checkpoint was made, and is told: the code, the versions, the machine."""

import shutil
import signal
from pathlib import Path

import orjson
import pytest
from jobs import Job, SlurmJob

import job
from job.config.settings import Settings
from job.machine import cpu_model
from job.segment.opening import of_machine
from job.segment.resume import inexactness

INSTALLED = Path(job.__file__).parent.parent


def _another_release(folder: Path) -> Path:
    """A copy of the installed packages in which a line is different, and the version is not."""
    for package in ("aae", "job", "slurm"):
        shutil.copytree(INSTALLED / package, folder / package)
    with (folder / "aae" / "adam.py").open("a") as file:
        file.write("# another release\n")
    return folder


@pytest.mark.process
def test_other_code_under_a_run_is_told(small_job: Job, tmp_path: Path) -> None:
    """At the resume; whoever starts the run on purpose makes it the code of the run."""
    assert small_job.interrupt(signal.SIGTERM, at_step=50) == 75
    before = orjson.loads(small_job.run_dir.settings_file.read_bytes())["source_digest"]
    small_job.cold = True
    small_job.load_first(_another_release(tmp_path / "other"))
    assert small_job.run(max_steps=200) == 0, small_job.output
    assert [record["reason"] for record in small_job.events("warning")] == ["source_changed"]
    assert "SHA-256 of the installed code" in small_job.output
    assert orjson.loads(small_job.run_dir.settings_file.read_bytes())["source_digest"] != before


def test_other_code_under_a_queued_job_is_told(job: SlurmJob, tmp_path: Path) -> None:
    """An upgrade in place between the submit and the first start."""
    other = _another_release(tmp_path / "other")
    held = f'["export PYTHONPATH={other}:$PYTHONPATH"]'
    job.wait_until_finished(job.submit(slurm_setup=held, max_steps=60))
    assert [record["reason"] for record in job.events("warning")] == ["source_changed"]


def test_another_model_of_gpu_is_told_with_what_avoids_it() -> None:
    """An older checkpoint, which does not tell its hardware, is not known to be of another."""
    settings = Settings(num_threads=1)
    state = {"step": 5, "device": "cpu", "num_threads": 1, "settings": {}, "hardware": "NVIDIA A100"}
    ((reason, message),) = inexactness(state, settings, "cpu", cpu_model(), cuda_graph=False)
    assert reason == "hardware_changed"
    assert "NVIDIA A100" in message
    assert "AAE_SLURM_CONSTRAINT" in message
    del state["hardware"]
    assert inexactness(state, settings, "cpu", cpu_model(), cuda_graph=False) == []


def test_more_threads_than_cpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a move to a smaller machine: their number is kept, and both numbers are told."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert of_machine(Settings(num_threads=2)) == []
    ((reason, message),) = of_machine(Settings(num_threads=8))
    assert reason == "few_cpus"
    assert "8 threads on 2 CPUs" in message
    assert "AAE_NUM_THREADS=2" in message
