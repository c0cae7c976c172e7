"""Starts a run on this machine through submitit's local executor, and finds it again."""

import os
import shlex

import submitit

from job.config.allocation import Allocation
from job.rundir.directory import RunDir
from slurm.login.batch_script import PYTHON, UNLIMITED, scrub_environment
from slurm.task import Task

_TEN_YEARS_MIN = 5_256_000


def start_locally(run_dir: RunDir, allocation: Allocation, *, time_limit: bool) -> str:
    """Start a run on this machine in a session of its own, which outlives the shell; returns the controller's process id."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # submitit names the GPUs that the task may see; ours sees what this shell sees.
    gpus = ["-u", "CUDA_VISIBLE_DEVICES"] if visible is None else [f"CUDA_VISIBLE_DEVICES={visible}"]
    python = f"env {shlex.join(gpus)} {PYTHON}"
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        scrub_environment()
        executor = submitit.LocalExecutor(folder=run_dir.slurm, max_num_timeout=UNLIMITED, python=python)
        executor.update_parameters(
            timeout_min=allocation.time_min if time_limit else _TEN_YEARS_MIN,
            signal_delay_s=allocation.signal_delay_s,
            stderr_to_stdout=True,
        )
        local = executor.submit(Task(str(run_dir.path)))
        os.write(writer, str(local.job_id).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        process_id = pipe.read()
    if not process_id:
        raise OSError(f"submitit's local executor did not start in {run_dir.slurm}")
    return process_id
