"""The harness: runs the real `aae-job` command, interrupts it, and compares what runs leave behind byte for byte."""

import atexit
import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pytest
from cluster import Cluster, sleeps, wait_until_still
from filelock import FileLock
from warm import PIXEL, WarmProcess, start_warm

from job.log.reader import read_lines
from job.proofs.exactness import Traces
from job.rundir.directory import RunDir

TOTAL = 600

# For a sitecustomize: a step takes ten milliseconds, in which it costs next to no processor time.
SLOW = """
import sys, threading, time

def slow_down():
    while "torch" not in sys.modules:
        time.sleep(0.01)
    import torch  # waits until all of it is loaded

    real = torch.addcmul  # which a step calls once

    def addcmul(*arguments, **options):
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.01)
        return real(*arguments, **options)

    torch.addcmul = addcmul

if "submitit.core._submit" in sys.orig_argv or sys.orig_argv[-2:] == ["slurm", "run"]:
    threading.Thread(target=slow_down, daemon=True).start()
"""

# Stands for matplotlib in runs whose curves no test looks at: takes every call, and saves one pixel.
UNDRAWN = """
import pathlib, sys, types

class Anything:
    def __call__(self, *_, **__):
        return self

    def __getattr__(self, _):
        return self

    def __getitem__(self, _):
        return self

    def subplots(self, rows, *_, **__):
        return [self] * rows

    def savefig(self, file, **_):
        file.write(pathlib.Path(__file__).with_name("pixel.png").read_bytes())

for name in ("figure", "ticker", "backends", "backends.backend_agg"):
    module = sys.modules[f"matplotlib.{name}"] = types.ModuleType(name)
    module.__getattr__ = lambda _: Anything()
"""

Process: TypeAlias = "subprocess.Popen[str] | WarmProcess"


@cache
def _modules() -> Path:
    """A folder with two of modules for PYTHONPATH: `undrawn` and `slow`; users other than root may read them."""
    folder = Path(tempfile.mkdtemp(prefix="aae-modules-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, text in (("undrawn/matplotlib/__init__.py", UNDRAWN), ("slow/sitecustomize.py", SLOW)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    (folder / "undrawn" / "matplotlib" / "pixel.png").write_bytes(PIXEL)
    folder.chmod(0o755)
    return folder


def small_settings(**changes: object) -> dict[str, str]:
    """Variables of a run of some seconds with many log records, lattices and checkpoints."""
    settings: dict[str, object] = {
        "run_name": "small",
        "hidden_dim": 16,
        "batch_size": 10,
        "max_steps": TOTAL,
        "num_threads": 1,
        "device": "cpu",
        "log_every_steps": 7,
        "lattice_every_steps": 100,
        "lattice_size": 4,
        "checkpoint_every_steps": 40,
        **changes,
    }
    return {f"AAE_{name.upper()}": str(value) for name, value in settings.items()}


# A run for the tests on a real Slurm: cheap steps, and enough of them to be found training when it is interrupted.
INTERVAL, LOGGED = 150, 20  # steps between two checkpoints, and two `step` records
ON_SLURM: dict[str, Any] = {
    "max_steps": 600,
    "log_every_steps": LOGGED,
    "lattice_every_steps": INTERVAL,
    "checkpoint_every_steps": INTERVAL,
}
# For AAE_SLURM_EXTRA: a job that a test needs in the queue, and that nothing is to train.
IN_AN_HOUR = '{"begin": "now+1hour"}'


def strace(calls: str, inject: str, paths: Iterable[Path] = ()) -> tuple[str, ...]:
    """The command before a command that makes system calls of it fail: all of them, or those that concern some paths."""
    watched = (word for path in paths for word in ("-P", str(path)))
    trace = ("-e", f"trace={calls}", "-e", f"inject={calls}:{inject}")
    return ("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", *watched, *trace)


class Job:
    """One run directory and the processes of `aae-job` that work on it."""

    def __init__(self, runs_dir: Path, settings: Mapping[str, str], name: str = "small") -> None:
        self.run_dir = RunDir(runs_dir / name)
        self.output = ""
        self.prefix: tuple[str, ...] = ()  # a command that is to run the command, such as strace
        self.cold = False  # whether torch is loaded by each of its processes anew
        self._draws = False
        self._log_size = 0
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{_modules()}/undrawn",
            "AAE_RUNS_DIR": str(runs_dir),
            **settings,
        }

    def draw(self) -> None:
        """Have its curves drawn by matplotlib itself; for all other runs a pixel stands for them."""
        self._draws = True
        self.environment["PYTHONPATH"] = self.environment["PYTHONPATH"].replace(f"{_modules()}/undrawn", "").strip(":")

    def slow_down(self) -> None:
        """Have a step of its jobs take so long that few are made while a test looks elsewhere."""
        self.load_first(_modules() / "slow")

    def load_first(self, folder: Path) -> None:
        """Have its processes look for modules, such as a sitecustomize, in a folder first."""
        self.environment["PYTHONPATH"] = f"{folder}:{self.environment['PYTHONPATH']}"

    def start(self, *arguments: str, module: str = "job", rest_at: int | None = None, **changes: Any) -> Process:
        """Start the command and return while it runs; one that is not cold stops once it has logged `rest_at` steps."""
        self._log_size = self.run_dir.events_file.stat().st_size if self.run_dir.events_file.exists() else 0
        environment = {**self.environment, **{f"AAE_{k.upper()}": str(v) for k, v in changes.items()}}
        if not self.prefix and not self.cold:
            return start_warm(module, list(arguments), environment, rest_at, draws=self._draws)
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-P", "-m", module, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, process: Process) -> int:
        """Wait for the end; returns the exit code and keeps what was printed in `output`."""
        self.output, _ = process.communicate(timeout=280)
        return process.wait()

    def run(self, *arguments: str, module: str = "job", **changes: Any) -> int:
        """Run the command to its end; returns the exit code."""
        return self.wait(self.start(*arguments, module=module, **changes))

    def slurm(self, *arguments: str, **changes: Any) -> int:
        """Run an `aae-slurm` command to its end; returns the exit code."""
        return self.run(*arguments, module="slurm", **changes)

    def start_to_rest(self, at_step: int, **changes: Any) -> Process:
        """Start, and return once the process has logged the step and stopped itself."""
        assert not self.prefix, "it would not rest"
        assert not self.cold, "it would not rest"
        process = self.start(rest_at=at_step, **changes)
        self.wait_for_step(process, at_step)
        wait_until_still(process.pid)
        return process

    def interrupt(self, number: signal.Signals, at_step: int, **changes: Any) -> int:
        """Start, send a signal once a log record of `at_step` or later is written, and wait for the end.

        No step is made meanwhile, however late the signal comes, but by a process that is cold or that another command runs.
        """
        if self.prefix or self.cold:
            process = self.start(**changes)
            self.wait_for_step(process, at_step)
        else:
            process = self.start_to_rest(at_step, **changes)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        return self.wait(process)

    def wait_for_step(self, process: Process, step: int) -> None:
        """Return once the process started last has logged the step; fails if it ends before."""
        deadline = time.monotonic() + 120
        while self._newest_step() < step:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"no step {step} within 120 s"
            time.sleep(0.01)

    def _newest_step(self) -> int:
        """The step of the last whole record that was written since the last start, -1 if none was."""
        if not self.run_dir.events_file.exists():
            return -1
        with self.run_dir.events_file.open("rb") as file:
            file.seek(max(self._log_size, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().split(b"\n")
        return int(orjson.loads(lines[-2])["step"]) if len(lines) > 2 else -1

    def wait_until_step(self, step: int, segment: int = 1, timeout_s: float = 150) -> None:
        """Wait until a segment has logged a step, whoever has started it."""
        self.wait_for_step_of(lambda record: record["segment"] == segment and record["step"] >= step, timeout_s)

    def wait_for_step_of(self, is_it: Callable[[dict[str, Any]], bool], timeout_s: float = 150) -> dict[str, Any]:
        """Wait for a `step` record, whoever writes it, and return the newest that is what is waited for."""
        deadline = time.monotonic() + timeout_s
        seen = -1
        while True:
            size = self.run_dir.events_file.stat().st_size if self.run_dir.events_file.exists() else 0
            found = filter(is_it, reversed(self.events("step"))) if 0 < size != seen else iter(())
            if (record := next(found, None)) is not None:
                return record
            seen = size  # who waits takes no processor from what is waited for
            assert time.monotonic() < deadline, f"no such step is logged:\n{self.job_log()}"
            time.sleep(0.02)

    def let_go_on(self, process: int, *, until_signalled: bool = False) -> None:
        """End the rest of a process, or wait until a signal for it has: Slurm's own come with a SIGCONT."""
        deadline = time.monotonic() + 150
        while until_signalled and sleeps(process):
            assert time.monotonic() < deadline, f"no signal for the run:\n{self.job_log()}"
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)

    @contextlib.contextmanager
    def resting_at(self, step: int, segment: int = 1, *, until_signalled: bool = False) -> Iterator[int]:
        """Stop the process once a segment has logged a step, so that it is about the same moment on any machine.

        It goes on at the block's end, or `until_signalled` when a signal for it has come: Slurm's own come with a SIGCONT. Until
        then it costs no processor time. Gives its process id.
        """
        self.wait_until_step(step, segment)
        process = self.process()
        os.kill(process, signal.SIGSTOP)
        try:
            wait_until_still(process)
            yield process
            self.let_go_on(process, until_signalled=until_signalled)
        finally:
            self.let_go_on(process)

    def process(self) -> int:
        """The process id of the run's newest segment."""
        return int(self.status()["pid"])

    def job_log(self) -> str:
        """All that the run's jobs have printed."""
        return "\n".join(path.read_text() for path in self.run_dir.slurm.glob("*.out"))

    def records(self) -> list[dict[str, Any]]:
        """All whole records of the log, the superseded ones too."""
        return [orjson.loads(line) for line in read_lines(self.run_dir.events_file)]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The records of one event."""
        return [record for record in self.records() if record["event"] == name]

    def status(self) -> dict[str, Any]:
        """The content of status.json."""
        status: dict[str, Any] = orjson.loads(self.run_dir.status_file.read_bytes())
        return status

    def traces(self) -> Traces:
        """What this run has left behind; the run must be finished."""
        return Traces.of(self.run_dir)


class SlurmJob(Job):
    """One run, submitted to a cluster."""

    def __init__(self, folder: Path, cluster: Cluster, **changes: object) -> None:
        super().__init__(folder / "runs", small_settings(slurm_gpus=0, **{**ON_SLURM, **changes}))
        self.cluster = cluster
        self.environment["SLURM_CONF"] = str(cluster.conf)

    def submit(self, *arguments: str, **changes: object) -> str:
        """`aae-slurm submit`; returns the job id it printed."""
        assert self.slurm("submit", *arguments, **changes) == 0, self.output
        match = re.search(r"^(?:as|it has already) +job (\d+)", self.output, re.MULTILINE)
        assert match, self.output
        return match[1]

    def wait_until_finished(self, job_id: str) -> None:
        """Wait until the job has ended well and the run with it."""
        state = self.cluster.wait_for_state(job_id, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", timeout_s=200)
        assert state == "COMPLETED", self.job_log()
        assert self.status()["state"] == "finished"

    def shown(self) -> dict[str, object]:
        """What `aae-slurm status --json` says of the run."""
        self.slurm("status", self.run_dir.path.name, "--json")
        (one,) = orjson.loads(self.output)
        assert isinstance(one, dict)
        return one

    def reasons(self) -> list[str]:
        """Why the segments stopped, in order."""
        return [record["reason"] for record in self.events("stopped")]

    def lost(self) -> list[int]:
        """Steps lost at each resume."""
        return [record["steps_lost"] for record in self.events("resumed")]


@contextlib.contextmanager
def resting_together(jobs: Sequence[Job], step: int, *, until_signalled: bool = False) -> Iterator[list[int]]:
    """`Job.resting_at` of several at once, so that none comes to its end while another one is waited for."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(jobs)) as waiting:
        rests = [job.resting_at(step, until_signalled=until_signalled) for job in jobs]
        yield list(waiting.map(stack.enter_context, rests))


def once(tmp_path_factory: pytest.TempPathFactory, name: str, settings: dict[str, str]) -> Traces:
    """What an uninterrupted run leaves behind, made by the first of the parallel test processes that asks."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{name}.json"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            job = Job(tmp_path_factory.mktemp(name), settings)
            assert job.run() == 0, job.output
            shared.write_bytes(orjson.dumps(asdict(job.traces())))
        return Traces(**orjson.loads(shared.read_bytes()))


@contextlib.contextmanager
def as_nobody(cluster: Cluster, **changes: object) -> Iterator[tuple[SlurmJob, Callable[[dict[str, str]], str]]]:
    """A run of a user who is not root, and how that user submits it: with further variables, for the job's id."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="aae-nobody-") as name:
        os.chown(name, nobody.pw_uid, nobody.pw_gid)
        job = SlurmJob(Path(name), cluster, **changes)

        def submit(variables: dict[str, str]) -> str:
            done = subprocess.run(
                [_python_for(nobody.pw_uid), "-P", "-m", "slurm", "submit"],
                env=job.environment
                | {"PYTHONPATH": os.pathsep.join([f"{_modules()}/undrawn", *_package_folders()])}
                | variables,
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return re.search(r"job (\d+)", done.stdout)[1]  # type: ignore[index]

        yield job, submit
        cluster.clear()


def _package_folders() -> list[str]:
    modules = (importlib.util.find_spec(name) for name in ("torch", "slurm"))
    return sorted({str(Path(module.origin or "").parent.parent) for module in modules if module is not None})


def _python_for(uid: int) -> str:
    """This Python, or the system's of the same version where this one lies in a folder that the user may not enter."""
    system = f"/usr/bin/python3.{sys.version_info.minor}"
    for python in (sys.executable, system):
        with contextlib.suppress(OSError):
            subprocess.run([python, "-c", ""], user=uid, check=True, cwd="/")
            return python
    pytest.fail(f"neither {sys.executable} nor {system} can be run by another user than root")
