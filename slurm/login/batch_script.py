"""The batch script of a run or of an array of them, and its way to Slurm through submitit; the pickle carries one path."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from job.config.allocation import Allocation
from job.rundir.directory import RunDir
from job.rundir.sweep import Array, SweepDir
from job.segment.memory import raised_memory_mb
from slurm.findings import CheckDir
from slurm.scheduler.ask import clean_environment
from slurm.task import CheckTask, ElementTask, Task

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


@dataclass(frozen=True)
class Order:
    """What Slurm is asked for: one run's job, or an array of them.

    `folder` takes submitit's files; `task` is written there as `pickle` before sbatch is asked, and `where` tells the aftermath
    which run, or which array of a sweep, it comes after; without it nothing comes after. `memory_mb` stands in for
    AAE_SLURM_MEM, `count` is the array's length, `parallel` how many of it may run at once, and `after` are arrays that are to
    end first.
    """

    name: str
    folder: Path
    task: Task | CheckTask
    pickle: str
    where: tuple[str, ...]
    memory_mb: int | None
    count: int | None = None
    parallel: int | None = None
    after: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, run_dir: RunDir, allocation: Allocation) -> "Order":
        """One run's job."""
        path = str(run_dir.path)
        memory_mb = raised_memory_mb(run_dir, allocation)
        return cls(run_dir.path.name, run_dir.slurm, Task(path), TASK, (path,), memory_mb)

    @classmethod
    def of_array(
        cls,
        sweep_dir: SweepDir,
        array: Array,
        run_dirs: list[RunDir],
        allocation: Allocation,
        after: tuple[str, ...] = (),
    ) -> "Order":
        """An array of a sweep's, with as much memory as the run needs that needs most."""
        path = str(sweep_dir.path)
        return cls(
            sweep_dir.path.name,
            sweep_dir.slurm,
            ElementTask(path, array.number),
            f"task-{array.number}.pkl",
            (path, str(array.number)),
            max(filter(None, (raised_memory_mb(run_dir, allocation) for run_dir in run_dirs)), default=None),
            len(array.indices),
            array.parallel,
            after,
        )

    @classmethod
    def of_check(cls, check_dir: CheckDir, nonce: str) -> "Order":
        """A job that looks around on a node."""
        return cls("aae-check", check_dir.slurm, CheckTask(str(check_dir.path), nonce), TASK, (), None)

    @property
    def job(self) -> str:
        """What a job calls itself in the shell of its script, as submitit does in the names of its files."""
        return '"$SLURM_JOB_ID"' if self.count is None else '"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"'


def _executor_for(order: Order, allocation: Allocation) -> SlurmExecutor:
    executor = _Executor(folder=order.folder, max_num_timeout=UNLIMITED, python=PYTHON)
    quoted = shlex.quote(str(order.folder))
    job = f"{quoted}/{order.job}"
    before = [
        # What a killed start of this job left behind would end the next one or be taken for its result.
        f"rm -f {job}_*_result.pkl {job}_*.save_tmp",
        # submitit names the task after the job once sbatch has answered; an answer that is lost leaves it without, and the
        # elements of an array are never given one.
        f"[ -e {job}_submitted.pkl ] || cp {quoted}/{order.pickle} {job}_submitted.pkl",
    ]
    after = [
        "code=$?",
        "trap '' TERM",  # a requeue ends the script, which has still to say where the job is not to be started
        *(
            [f'{shlex.quote(sys.executable)} -P -m slurm.aftermath {shlex.join(order.where)} "$code"']
            if order.where
            else []
        ),
        'exit "$code"',
    ]
    extra = {name.replace("_", "-"): value for name, value in allocation.extra.items() if value is not False}
    if order.after:
        waits = f"afterany:{':'.join(order.after)}"
        extra["dependency"] = f"{extra['dependency']},{waits}" if extra.get("dependency") else waits
    executor.update_parameters(
        job_name=order.name,
        partition=allocation.partition,
        account=allocation.account,
        qos=allocation.qos,
        time=allocation.time_min,
        gpus_per_node=None if allocation.gpus == "0" else allocation.gpus,
        cpus_per_task=allocation.cpus_per_task,
        mem=f"{order.memory_mb}M" if order.memory_mb is not None else allocation.mem,
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
        additional_parameters={"requeue": True, **extra},
    )
    if order.count is not None:
        executor.parameters |= {"map_count": order.count, "array_parallelism": order.parallel or order.count}
    return executor


def _srun_options(allocation: Allocation) -> list[str]:
    cpus = {"cpus-per-task": allocation.cpus_per_task or False}
    options = {name.replace("_", "-"): value for name, value in {**cpus, **allocation.srun}.items()}
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value is not False
    ]


def script_text(order: Order, allocation: Allocation) -> str:
    """The batch script that `submit_to_slurm` sends, byte for byte."""
    executor = _executor_for(order, allocation)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit_to_slurm(order: Order, allocation: Allocation) -> str:
    """Submit a job or an array; returns its id.

    Raises submitit's FailedJobError with sbatch's words, or OSError without sbatch.
    """
    scrub_environment()
    if allocation.cluster is not None:
        os.environ["SLURM_CLUSTERS"] = allocation.cluster
    task = DelayedSubmission(order.task)
    task.set_timeout(allocation.time_min, UNLIMITED)
    task.dump(order.folder / order.pickle)
    return str(_executor_for(order, allocation).submit(order.task).job_id)


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
