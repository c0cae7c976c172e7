"""Fixtures of all tests: an environment without AAE_* or scheduler variables, and one uninterrupted run to compare with."""

import os
from pathlib import Path

import pytest
from jobs import Job, Traces, small_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AAE_", "SLURM_", "SBATCH_", "SUBMITIT_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """What a run of `small_settings` leaves behind when nothing interrupts it."""
    job = Job(tmp_path_factory.mktemp("uninterrupted"), small_settings())
    assert job.run() == 0, job.output
    return job.traces()


@pytest.fixture
def small_job(tmp_path: Path) -> Job:
    """A run of `small_settings` in a directory of its own, not started yet."""
    return Job(tmp_path, small_settings())
