"""A real Slurm for tests: munged, slurmctld and two slurmd in a folder of their own, with GPUs that are names only."""

import contextlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

NODES = ("n1", "n2")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")

_SLURM_CONF = """\
ClusterName=lab
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters={select}
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=8
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=10
InactiveLimit=0
ReturnToService=2
BatchStartTimeout=10
MessageTimeout=10
SlurmdParameters=config_overrides
{extra}
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 RealMemory=64000 Gres=gpu:fake:8 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 RealMemory=64000 Gres=gpu:fake:8 State=UNKNOWN
PartitionName=low  Nodes=n[1-2] Default=YES PriorityTier=1  PreemptMode=REQUEUE GraceTime=0 MaxTime=UNLIMITED State=UP
PartitionName=grace Nodes=n[1-2] PriorityTier=1  PreemptMode=REQUEUE GraceTime=20 MaxTime=UNLIMITED State=UP
PartitionName=cancel Nodes=n[1-2] PriorityTier=1 PreemptMode=CANCEL GraceTime=0 MaxTime=UNLIMITED State=UP
PartitionName=short Nodes=n[1-2] PriorityTier=1 MaxTime=5 State=UP
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF MaxTime=UNLIMITED State=UP
"""

_CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint={folder}/cgroup
ConstrainRAMSpace=yes
"""

# Where cgroups cannot be used, newer releases never register a node without this, which older ones do not know.
_NO_CGROUP_CONF = "CgroupPlugin=disabled\n"

MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")


class Cluster:
    """A running two-node Slurm; `environment` reaches it, and nothing of the system's own is touched."""

    def __init__(self, folder: Path, *, user_signal: bool = False, memory: bool = False, extra: str = "") -> None:
        self.folder = folder
        self.conf = folder / "etc" / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._extra = "SlurmctldParameters=preempt_send_user_signal" if user_signal else extra
        self._cgroups = MEMORY_CGROUPS / folder.name if memory else None

    def start(self) -> None:
        """Bring everything up and wait until both nodes are idle; about two seconds."""
        missing = [name for name in NEEDED if shutil.which(name) is None]
        assert not missing, f"no {', '.join(missing)} here: apt-get install slurm-wlm munge (tests/run does, as root)"
        for name in ("etc", "run", "state", "log", "dev", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        for number in range(8):
            os.mknod(self.folder / "dev" / f"fakegpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        key = self.folder / "etc" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.conf.write_text(
            _SLURM_CONF.format(
                folder=self.folder,
                ports=_free_ports(3),
                extra=f"{self._extra}\nDefMemPerCPU=500" if self._cgroups else self._extra,
                task="task/cgroup" if self._cgroups else "task/none",
                select="CR_CPU_Memory" if self._cgroups else "CR_CPU",
            )
        )
        if self._cgroups:
            self._cgroups.mkdir()
            (self.folder / "cgroup").mkdir()
            (self.folder / "cgroup" / "memory").symlink_to(self._cgroups)
            (self.folder / "etc" / "cgroup.conf").write_text(_CGROUP_CONF.format(folder=self.folder))
        elif release() >= (23, 11):
            (self.folder / "etc" / "cgroup.conf").write_text(_NO_CGROUP_CONF)
        devices = f"{self.folder}/dev/fakegpu[0-7]"
        (self.folder / "etc" / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=n[1-2] Name=gpu Type=fake File={devices}\n"
        )
        run = self.folder / "run"
        self._call(
            "munged",
            "--force",
            f"--socket={run}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={run}/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={run}/munged.seed",
            "--num-threads=2",
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def start_controller(self) -> None:
        """Start slurmctld, with the jobs that it knew when it ended."""
        self._call("slurmctld", "-i")

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on."""
        pid = self._pid("slurmctld")
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._call("slurmd", "-N", node)

    def kill_node(self, node: str, job_id: str) -> None:
        """End a node as a power cut would: its slurmd and all processes of a job on it, by SIGKILL."""
        daemon = self._pid(f"slurmd.{node}")
        assert daemon is not None
        processes = [pid for pid in _all_processes() if self._is_of_job(pid, job_id)]
        parents = {parent for pid in processes if _name(parent := parent_of(pid)) == "slurmstepd"}
        at_once = (daemon, *parents, *processes)
        # First stopped, or those that live longer would act on the death of the others.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in at_once:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            wait_until_still(*at_once)

    def _is_of_job(self, pid: int, job_id: str) -> bool:
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_CONF={self.conf}".encode()} <= set(variables)

    def stop(self) -> None:
        """End every daemon by its process id; SIGKILL after ten seconds."""
        pids = [pid for name in ("slurmd.n1", "slurmd.n2", "slurmctld", "munged") if (pid := self._pid(name))]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while pids and time.monotonic() < deadline:
            pids = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            time.sleep(0.1)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._cgroups:
            _remove_cgroups(self._cgroups)

    def ask(self, *command: str) -> str:
        """Run one of Slurm's own commands; returns what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def state(self, job_id: str) -> str:
        """A job's state as squeue names it, '' if it is unknown."""
        done = subprocess.run(
            ["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    def wait_for_state(self, job_id: str, *states: str, timeout_s: float = 150) -> str:
        """Wait until a job is in one of the states; returns it."""
        deadline = time.monotonic() + timeout_s
        while (state := self.state(job_id)) not in states:
            assert time.monotonic() < deadline, f"job {job_id} is {state}, not {states}: {self.log_tail()}"
            time.sleep(0.5)
        return state

    def clear(self) -> None:
        """End all jobs, and wait until the queue is empty for whoever comes next."""
        self.ask("scancel", "--user", "root")
        deadline = time.monotonic() + 60
        while left := self.ask("squeue", "-h"):
            assert time.monotonic() < deadline, f"jobs that do not end:\n{left}\n{self.log_tail()}"
            time.sleep(0.3)

    def log_tail(self) -> str:
        """The end of slurmctld's log, for a failure's message."""
        return "\n".join((self.folder / "log" / "slurmctld.log").read_text().splitlines()[-15:])

    def _pid(self, name: str) -> int | None:
        try:
            pid = int((self.folder / "run" / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, ValueError):
            return None
        return pid if command == name.split(".")[0] else None

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def wait_until_idle(self) -> None:
        """Wait until both nodes would take a job."""
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-p", "low", "-o", "%t"],
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.stdout.split() == ["idle"] * len(NODES):
                return
            assert time.monotonic() < deadline, f"nodes are {done.stdout.split()}: {self.log_tail()}"
            time.sleep(0.1)


@cache
def release() -> tuple[int, ...]:
    """The release of Slurm that is installed, such as (22, 5, 8)."""
    said = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", said))


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    """The process that a process was started by, 0 if it is gone."""
    return int(_stat(pid)[1])


def sleeps(pid: int) -> bool:
    """Whether a process is stopped by SIGSTOP and no other signal waits for it."""
    with contextlib.suppress(OSError):  # it may end between the two looks
        return _stat(pid)[0] == "T" and not has_pending_signal(pid)
    return False


def wait_until_still(*pids: int) -> None:
    """Wait until all are stopped, or gone: some time passes after the signal, the more of it the busier the machine is."""
    while not all(_stat(pid)[0] in ("T", "Z", "X", "") for pid in pids):
        time.sleep(0.005)


def has_pending_signal(pid: int) -> bool:
    """Whether a signal waits for a process to serve it; raises OSError if there is no such process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:")))


def _stat(pid: int) -> list[str]:
    """proc(5), from field 3, the state, on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["", "0"]


def _remove_cgroups(top: Path) -> None:
    """A cgroup goes by rmdir, deepest first, once no process is in it."""
    deadline = time.monotonic() + 30
    while top.exists() and time.monotonic() < deadline:
        for processes in top.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                for pid in processes.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Of this test process's own range, below those that the kernel gives away to whoever asks for any."""
    first = 10_000 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    free: list[int] = []
    for port in random.sample(range(first, first + 500), 500):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"no {count} free ports from {first} on")


@contextlib.contextmanager
def running_cluster(*, user_signal: bool = False, memory: bool = False, extra: str = "") -> Iterator[Cluster]:
    """A cluster for as long as the block lasts, in a folder that users other than root may enter too; `extra` is for slurm.conf."""
    with tempfile.TemporaryDirectory(prefix="aae-lab-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        cluster = Cluster(Path(name), user_signal=user_signal, memory=memory, extra=extra)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
