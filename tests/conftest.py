"""Fixtures of all tests: an environment without AAE_* or scheduler variables, and one uninterrupted run to compare with."""

import gc
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pluggy
import pytest
from cluster import MEMORY_CGROUPS, Cluster, running_cluster
from commands import Commands
from jobs import ON_SLURM, Job, SlurmJob, once, small_settings
from warm import ForgeProcess

from job.proofs.exactness import Traces
from job.segment.signals import Signals

# The parallel test processes, and what they start, share the cores: with a thread each in every one of them they would
# wait for each other's, ten times as long as one alone takes. Where there are two, they are not to spin while they wait.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# Under nohup SIGHUP is ignored, and SIGINT in the background of a script, which every process that is started here would inherit.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # until all is collected


def pytest_addoption(parser: pytest.Parser) -> None:
    """The size of the campaigns: CI runs the default, a person any."""
    parser.addoption(
        "--size", type=int, default=2, help="interruptions, failing system calls, ... of each campaign [2]"
    )


def pytest_configure(config: pytest.Config) -> None:
    """One process forks for all parallel test processes; it loads torch when it is asked for the first time."""
    if not hasattr(config, "workerinput"):
        forge = ForgeProcess()
        config.add_cleanup(forge.close)
        os.environ["TESTS_FORGE"] = forge.address


def pytest_collection_finish() -> None:
    """What is loaded now stays: Python need not look for garbage in it at every test, nor has it while it was loaded."""
    gc.enable()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs Slurm or processes of its own, by its fixtures where it does not say so itself."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {"cluster", "signalling_cluster", "memory_cluster"}:
            item.add_marker("slurm")
        elif fixtures & {"small_job", "uninterrupted", "whole"}:
            item.add_marker("process")
    items[:] = _dealt(items, int(getattr(config, "workerinput", {}).get("workercount", 1)))


def _starts_processes(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slurm", "campaign", "process"))


@pytest.fixture
def commands(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands of the test's own, first on PATH."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    monkeypatch.setenv("PATH", f"{commands.folder}:{os.environ['PATH']}")
    return commands


@pytest.fixture(autouse=True)
def _no_process_unless_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a process other than a stand-in says so by its mark: those without one are run at every change."""
    if _starts_processes(request.node):
        return
    folder = request.getfixturevalue("commands").folder if "commands" in request.fixturenames else None
    start = subprocess.Popen

    def start_stand_in(command: Sequence[str], **named: Any) -> Any:
        stands_in = folder is not None and (folder / command[0]).is_file()
        assert stands_in, f"a test that starts a process is marked as `process`: {command}"
        return start(command, **named)

    monkeypatch.setattr(subprocess, "Popen", start_stand_in)


def _dealt(items: list[pytest.Item], num_processes: int) -> list[pytest.Item]:
    """The tests in an order in which the parallel test processes use the processor all the time.

    Each is given a stretch of them to begin with, as many as any other, and takes from others when it is through. Most begin with
    tests that wait, as long as any other, and the rest with those that start processes; the quick ones are what is taken.
    """

    def waits_s(item: pytest.Item) -> float:
        mark = item.get_closest_marker("waits")
        return float(mark.args[0]) if mark is not None else 0.0

    stretches: list[list[pytest.Item]] = [[] for _ in range(num_processes)]
    num_waiting = max(1, round(0.7 * num_processes))
    for item in sorted(items, key=waits_s, reverse=True):
        if waits_s(item):
            min(stretches[:num_waiting], key=lambda stretch: sum(map(waits_s, stretch))).append(item)
    computing = itertools.cycle(stretches[num_waiting:] or stretches)
    for item in items:
        if _starts_processes(item) and not waits_s(item):
            next(computing).append(item)
    quick = [item for item in items if not _starts_processes(item)]
    left = len(items)
    for number, stretch in enumerate(stretches):
        num = max(0, left // (num_processes - number) - len(stretch))
        stretch += quick[:num]
        del quick[:num]
        left -= len(stretch)
    return [item for stretch in stretches for item in stretch]


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """How many faults a campaign is to make."""
    return int(request.config.getoption("--size"))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """What a campaign says that it has done: at once, and at the end of all tests."""

    def tell(line: str) -> None:
        print(line, flush=True)
        record_property("campaign", line)

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the campaigns have done."""
    reports = terminalreporter.getreports("passed")
    told = [
        f"{r.nodeid.split('::')[-1]}: {line}" for r in reports for name, line in r.user_properties if name == "campaign"
    ]
    if told:
        terminalreporter.section("campaigns")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """What a test of a segment does to signals in this process is over with it: a child would inherit that they are ignored."""
    before = {number: signal.getsignal(number) for number in (*Signals.ASKING, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AAE_", "SLURM_", "SBATCH_", "SUBMITIT_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """What a run of `small_settings` leaves behind when nothing interrupts it."""
    return once(tmp_path_factory, "uninterrupted", small_settings())


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """What the run of the tests on a real Slurm leaves behind when nothing interrupts it."""
    return once(tmp_path_factory, "whole", small_settings(**ON_SLURM))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real two-node Slurm of this test process's own."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def job(tmp_path: Path, cluster: Cluster) -> Iterator[SlurmJob]:
    """A run on the cluster; what is left of it is cancelled at the end."""
    job = SlurmJob(tmp_path, cluster)
    yield job
    cluster.clear()


@pytest.fixture(scope="session")
def signalling_cluster() -> Iterator[Cluster]:
    """A cluster whose preemption sends SIGUSR2 instead of SIGTERM."""
    with running_cluster(user_signal=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def memory_cluster() -> Iterator[Cluster]:
    """A cluster that holds each job to its memory by a cgroup, where this machine lets us make one."""
    if not MEMORY_CGROUPS.is_dir() or not os.access(MEMORY_CGROUPS, os.W_OK):
        pytest.skip(f"no memory cgroups (version 1) that can be written at {MEMORY_CGROUPS}")
    with running_cluster(memory=True) as cluster:
        yield cluster


@pytest.fixture
def small_job(tmp_path: Path) -> Job:
    """A run of `small_settings` in a directory of its own, not started yet."""
    return Job(tmp_path, small_settings())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[pytest.TestReport]]:
    """In CI a test on the real Slurm that did not run is a failure; memory cgroups may be missing there."""
    report = (yield).get_result()
    if "memory_cluster" in getattr(item, "fixturenames", ()):
        return
    if report.skipped and os.environ.get("CI") and any("cluster" in f for f in getattr(item, "fixturenames", ())):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
