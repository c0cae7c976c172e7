"""Hands a run to submitit: one executor for Slurm, one for this machine; the pickle carries one path."""

import contextlib
import os
import shlex
import sys
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

from job.config.allocation import Allocation
from job.rundir.directory import RunDir
from slurm.task import Task

# Runs first on the node. SIGUSR2, which would kill a process without a handler, waits from here on until the task can
# serve it; `env --block-signal` would do as well, but needs coreutils 8.31. -P keeps the working directory, where a user's
# job.py may lie, off the module path.
_SHIM = (
    "import os,signal,sys;signal.pthread_sigmask(signal.SIG_BLOCK,[signal.SIGUSR2]);"
    "os.execv(sys.executable,[sys.executable,'-P',*sys.argv[1:]])"
)
PYTHON = f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(_SHIM)}"

TASK = "task.pkl"  # the task as every job of the run finds it, written before sbatch is asked

# submitit's own allowance is never used up: the task decides by itself whether to go on.
_UNLIMITED = 1_000_000
_TEN_YEARS_MIN = 5_256_000


class _Executor(SlurmExecutor):
    """submitit's, also where no srun is installed: a dry run needs none, and sbatch says by itself that it is missing."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def slurm_executor(run_dir: RunDir, allocation: Allocation) -> SlurmExecutor:
    """The executor that submits a run; raises nothing, writes nothing."""
    folder = run_dir.slurm
    executor = _Executor(folder=folder, max_num_timeout=_UNLIMITED, python=PYTHON)
    quoted = shlex.quote(str(folder))
    job = f'{quoted}/"$SLURM_JOB_ID"'
    before = [
        # What a killed start of this job left behind would end the next one or be taken for its result.
        f"rm -f {job}_*_result.pkl {job}_*.save_tmp",
        # submitit names the task after the job once sbatch has answered; an answer that is lost leaves it without.
        f"[ -e {job}_submitted.pkl ] || cp {quoted}/{TASK} {job}_submitted.pkl",
    ]
    after = [
        "code=$?",
        f'{shlex.quote(sys.executable)} -P -m slurm.aftermath {shlex.quote(str(run_dir.path))} "$code"',
        'exit "$code"',
    ]
    executor.update_parameters(
        job_name=run_dir.path.name,
        partition=allocation.partition,
        account=allocation.account,
        qos=allocation.qos,
        time=allocation.time_min,
        gpus_per_node=allocation.gpus or None,
        cpus_per_task=allocation.cpus_per_task,
        mem=allocation.mem,
        constraint=allocation.constraint,
        exclude=allocation.exclude,
        signal_delay_s=allocation.signal_delay_s,
        setup=[*before, *allocation.setup],
        teardown=after,
        stderr_to_stdout=True,
        wckey=None,
        # Since 22.05 srun does not take it over from sbatch.
        srun_args=[f"--cpus-per-task={allocation.cpus_per_task}"],
        additional_parameters={"requeue": True, **{k: v for k, v in allocation.extra.items() if v is not False}},
    )
    return executor


def script_text(run_dir: RunDir, allocation: Allocation) -> str:
    """The batch script that `submit_to_slurm` sends, byte for byte."""
    executor = slurm_executor(run_dir, allocation)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit_to_slurm(run_dir: RunDir, allocation: Allocation) -> str:
    """Submit a run and return the job id; raises submitit's FailedJobError with sbatch's words, or OSError without sbatch."""
    scrub_environment()
    task = DelayedSubmission(Task(str(run_dir.path)))
    task.set_timeout(allocation.time_min, _UNLIMITED)
    task.dump(run_dir.slurm / TASK)
    return str(slurm_executor(run_dir, allocation).submit(Task(str(run_dir.path))).job_id)


def scrub_environment() -> None:
    """Forget an enclosing allocation: its variables would change or pin the new job. SLURM_CONF says where Slurm is."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) and name != "SLURM_CONF":
            del os.environ[name]


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
        executor = submitit.LocalExecutor(folder=run_dir.slurm, max_num_timeout=_UNLIMITED, python=python)
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


def local_controller(run_dir: RunDir) -> int | None:
    """The process id of submitit's local controller of this run, None if none lives here."""
    for path in run_dir.slurm.glob("*_submitted.pkl"):
        pid = path.name.removesuffix("_submitted.pkl")
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"submitit.local._local" in command and str(run_dir.slurm).encode() in command:
                return int(pid)
    return None
