"""The batch script of a run, and its way to Slurm through submitit; the pickle carries one path."""

import os
import re
import shlex
import sys

from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from job.config.allocation import Allocation
from job.rundir.directory import RunDir
from job.segment.memory import raised_memory_mb
from slurm.scheduler.ask import clean_environment
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

# The settings for what sbatch(1) reads from variables of its own.
_SETTINGS = {
    "SBATCH_ACCOUNT": "AAE_SLURM_ACCOUNT",
    "SBATCH_CONSTRAINT": "AAE_SLURM_CONSTRAINT",
    "SBATCH_GPUS_PER_NODE": "AAE_SLURM_GPUS",
    "SBATCH_MEM_PER_NODE": "AAE_SLURM_MEM",
    "SBATCH_PARTITION": "AAE_SLURM_PARTITION",
    "SBATCH_QOS": "AAE_SLURM_QOS",
    "SBATCH_TIMELIMIT": "AAE_SLURM_TIME",
}

# submitit's own allowance is never used up: the task decides by itself whether to go on.
UNLIMITED = 1_000_000


class _Executor(SlurmExecutor):
    """submitit's, also where no srun is installed: a dry run needs none, and sbatch says by itself that it is missing."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """The job in sbatch's answer, whatever a site's wrapper prints around it, or makes of it."""
        text = string.decode(errors="replace") if isinstance(string, bytes) else string
        said = re.findall(r"^Submitted batch job (\d+)\b", text, re.MULTILINE)
        bare = re.findall(r"^(\d+)(?:;\S+)?\s*$", text, re.MULTILINE)
        if not said and not bare:
            raise FailedSubmissionError(f"sbatch answered {text.strip()!r}, in which there is no job")
        return str((said or bare)[-1])


def slurm_executor(run_dir: RunDir, allocation: Allocation) -> SlurmExecutor:
    """The executor that submits a run; raises nothing, writes nothing."""
    folder = run_dir.slurm
    executor = _Executor(folder=folder, max_num_timeout=UNLIMITED, python=PYTHON)
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
        "trap '' TERM",  # a requeue ends the script, which has still to say where the job is not to be started
        f'{shlex.quote(sys.executable)} -P -m slurm.aftermath {shlex.quote(str(run_dir.path))} "$code"',
        'exit "$code"',
    ]
    raised_mb = raised_memory_mb(run_dir, allocation)
    executor.update_parameters(
        job_name=run_dir.path.name,
        partition=allocation.partition,
        account=allocation.account,
        qos=allocation.qos,
        time=allocation.time_min,
        gpus_per_node=None if allocation.gpus == "0" else allocation.gpus,
        cpus_per_task=allocation.cpus_per_task,
        mem=f"{raised_mb}M" if raised_mb is not None else allocation.mem,
        constraint=allocation.constraint,
        exclude=allocation.exclude,
        signal_delay_s=allocation.signal_delay_s,
        setup=[*before, *allocation.setup],
        teardown=after,
        stderr_to_stdout=True,
        wckey=None,
        # Where the job was submitted with --export=NONE, by the site's rules say, srun would start in an empty environment.
        # On a whole or hyper-threaded node srun would start a copy for each of its CPUs' worth; and since 22.05 it does not take
        # the number of CPUs over from sbatch.
        srun_args=["--export=ALL", "--ntasks=1", "--nodes=1", *_srun_options(allocation)],
        additional_parameters={
            "requeue": True,
            **{name.replace("_", "-"): value for name, value in allocation.extra.items() if value is not False},
        },
    )
    return executor


def _srun_options(allocation: Allocation) -> list[str]:
    cpus = {"cpus-per-task": allocation.cpus_per_task or False}
    options = {name.replace("_", "-"): value for name, value in {**cpus, **allocation.srun}.items()}
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value is not False
    ]


def script_text(run_dir: RunDir, allocation: Allocation) -> str:
    """The batch script that `submit_to_slurm` sends, byte for byte."""
    executor = slurm_executor(run_dir, allocation)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit_to_slurm(run_dir: RunDir, allocation: Allocation) -> str:
    """Submit a run and return the job id; raises submitit's FailedJobError with sbatch's words, or OSError without sbatch."""
    scrub_environment()
    if allocation.cluster is not None:
        os.environ["SLURM_CLUSTERS"] = allocation.cluster
    task = DelayedSubmission(Task(str(run_dir.path)))
    task.set_timeout(allocation.time_min, UNLIMITED)
    task.dump(run_dir.slurm / TASK)
    return str(slurm_executor(run_dir, allocation).submit(Task(str(run_dir.path))).job_id)


def scrub_environment() -> None:
    """Forget an enclosing allocation: its variables would change or pin the new job. SLURM_CONF says where Slurm is."""
    for name in set(os.environ) - set(clean_environment()):
        del os.environ[name]


def ignored_options() -> list[str]:
    """What this shell asks of sbatch by variables of its own, which a run's job does not heed, a line each."""
    return [
        f"{name}={value} is not heeded" + (f"; set {_SETTINGS[name]} for that" if name in _SETTINGS else "")
        for name, value in sorted(os.environ.items())
        if name.startswith("SBATCH_") and value
    ]
