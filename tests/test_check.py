"""`aae-slurm check`: what it says of a cluster, of the request, and of what is here."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Commands

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.config.sources import read_configuration
from job.segment.footprint import footprint
from slurm.findings import CheckDir, Line
from slurm.login.check import command, here
from slurm.login.check.here import filesystem_of, look_here
from slurm.login.check.on_node import _ended_without_a_word
from slurm.login.check.there import look_there
from slurm.node.look import look
from slurm.scheduler.site import Nodes, Partition, Site, gpus_of

CONFIG = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE", "KillWait": "30 sec", "JobRequeue": "1"}
LOW = Partition("low", True, "UP", 24 * 60, None, "REQUEUE", 0, 1, "ALL", "ALL")
HIGH = replace(LOW, name="high", is_default=False, preempt_mode="OFF", tier=10)
NODES = Nodes("low", 4, 16, 64_000, {"a100": 4}, {}, "idle")
SITE = Site(CONFIG, {"low": LOW, "high": HIGH}, [NODES, replace(NODES, partition="high")])


@pytest.fixture(autouse=True)
def _accepts(commands: Commands) -> None:
    """An sbatch that would take any script; the real one is asked in the tests on the real Slurm."""
    commands.add("sbatch", "echo 'sbatch: Job 7 to start at 2026-01-01T00:00:00 using 2 processors on n1' >&2")


def _lines(site: Site | str = SITE, **request: Any) -> dict[str, Line]:
    return {line.name: line for line in look_there(site, Allocation(**request), "")}


@pytest.mark.parametrize(
    ("gres", "gpus", "shares"),
    [
        ("(null)", {}, {}),
        ("gpu:8", {"": 8}, {}),
        ("gpu:a100:4(S:0-1),gpu:v100:2(S:0)", {"a100": 4, "v100": 2}, {}),
        ("gpu:a100:2,gpu:1g.10gb:7,gpu:a100_3g.20gb:2", {"a100": 2}, {"1g.10gb": 7, "a100_3g.20gb": 2}),
        ("gpu:h100:4,shard:32,mps:400(S:0),license:3", {"h100": 4}, {"shard": 32, "mps": 400}),
        ("gpu", {"": 1}, {}),
    ],
)
def test_gpus_and_shares_are_read_as_sinfo_lists_them(gres: str, gpus: dict[str, int], shares: dict[str, int]) -> None:
    """Whole ones by their type, and shares of them."""
    assert gpus_of(gres) == (gpus, shares)


def test_a_request_that_fits_is_fine() -> None:
    """No error, no warning."""
    assert {line.state for line in _lines(gpus="a100:1").values()} == {"ok"}


@pytest.mark.parametrize(
    ("request_", "name", "says", "helps"),
    [
        ({"partition": "nope"}, "partition", "there is no partition nope", "AAE_SLURM_PARTITION=low"),
        ({"time": "1-00:01:00"}, "time_limit", "more than low allows", "AAE_SLURM_TIME=1-00:00:00"),
        ({"cpus_per_task": 17}, "node", "17 CPUs", "AAE_SLURM_CPUS_PER_TASK=16"),
        ({"mem": "100G"}, "node", "102,400 MiB", "AAE_SLURM_MEM=64000M"),
        ({"gpus": "5"}, "gpus", "a node has a100:4", "AAE_SLURM_GPUS=a100:1"),
        ({"gpus": "h100:1"}, "gpus", "a node has a100:4", "AAE_SLURM_GPUS=a100:1"),
    ],
)
def test_a_request_that_cannot_be_met_names_what_can(
    request_: dict[str, Any], name: str, says: str, helps: str
) -> None:
    """An error with a setting that helps."""
    line = _lines(**request_)[name]
    assert (line.state, line.next) == ("error", helps)
    assert says in line.text


def test_what_cannot_be_looked_at_is_skipped_and_says_why() -> None:
    """A scheduler that is away is an error itself; without a partition nothing is compared."""
    away = _lines("slurm_load_ctl_conf error: Unable to contact slurm controller")
    assert away["scheduler"].state == "error"
    assert {line.state for name, line in away.items() if name != "scheduler"} == {"skipped"}
    assert "no answer" in away["accepted"].text
    nowhere = _lines(partition="nope")
    assert [nowhere[name].state for name in ("time_limit", "node", "gpus")] == ["skipped"] * 3
    no_default = _lines(replace(SITE, partitions={"high": HIGH}))["partition"]
    assert (no_default.state, no_default.next) == ("error", "AAE_SLURM_PARTITION=high")


def test_gpus_elsewhere_or_nowhere_are_told() -> None:
    """The partition that has them, or the settings of a run without."""
    bare = [replace(NODES, gpus={}), replace(NODES, partition="high")]
    assert _lines(replace(SITE, nodes=bare))["gpus"].next == "AAE_SLURM_PARTITION=high"
    none = _lines(replace(SITE, nodes=[bare[0]]))["gpus"]
    assert (none.state, none.next) == ("error", "AAE_SLURM_GPUS=0 AAE_DEVICE=cpu")
    assert _lines(replace(SITE, nodes=[bare[0]]), gpus="0")["gpus"].state == "ok"


def test_shares_of_a_gpu_are_offered_to_who_asks_for_a_whole_one() -> None:
    """A MIG type by AAE_SLURM_GPUS, shards through the extra options."""
    mig = replace(SITE, nodes=[replace(NODES, shares={"1g.10gb": 7})])
    assert _lines(mig)["gpu_shares"].next == "AAE_SLURM_GPUS=1g.10gb:1"
    assert _lines(mig, gpus="1g.10gb:1")["gpu_shares"].state == "ok"
    assert _lines(mig, gpus="1g.10gb:1")["gpus"].state == "ok"
    shards = _lines(replace(SITE, nodes=[replace(NODES, shares={"shard": 7})]))["gpu_shares"].next
    assert shards == 'AAE_SLURM_GPUS=0 AAE_SLURM_EXTRA=\'{"gres": "shard:1"}\''


@pytest.mark.parametrize(
    ("config", "partition", "state", "says"),
    [
        ({"PreemptType": "preempt/none"}, {}, "ok", "nothing is preempted"),
        ({}, {"preempt_mode": "OFF"}, "ok", "is not preempted"),
        ({}, {"tier": 10}, "ok", "no partition above"),
        ({}, {}, "ok", "Slurm requeues it"),
        ({}, {"grace_s": 60}, "ok", "grace time of 60 s (SIGTERM)"),
        ({"PreemptParameters": "send_user_signal"}, {"grace_s": 60}, "ok", "(SIGUSR2)"),
        ({"SlurmctldParameters": "a,preempt_send_user_signal"}, {"grace_s": 60}, "ok", "(SIGUSR2)"),
        ({}, {"preempt_mode": "SUSPEND"}, "ok", "suspending"),
        ({}, {"preempt_mode": "CANCEL"}, "ok", "no grace time: a run saves, it has itself requeued"),
        ({}, {"preempt_mode": "CANCEL", "grace_s": 60}, "ok", "itself requeued"),
        ({"KillWait": "2 sec"}, {}, "warning", "too short for a save"),
        ({"KillWait": "2 sec"}, {"preempt_mode": "CANCEL"}, "warning", "waits for your next submit"),
        ({"PreemptType": "preempt/qos"}, {"preempt_mode": "CANCEL"}, "ok", "by QOS"),
    ],
)
def test_preemption_is_told_for_this_run(
    config: dict[str, str], partition: dict[str, Any], state: str, says: str
) -> None:
    """In a sentence, by how this cluster does it."""
    site = replace(SITE, config=CONFIG | config, partitions={"low": replace(LOW, **partition), "high": HIGH})
    line = _lines(site)["preemption"]
    assert line.state == state
    assert says in line.text


@pytest.mark.parametrize(("told", "seconds"), [("", 121), ("cred_expire=30", 31), ("socket=/x,cred_expire=4", 121)])
def test_a_requeue_waits_for_the_credential(told: str, seconds: int) -> None:
    """Values below five mean the default, too."""
    assert replace(SITE, config={"AuthInfo": told}).requeue_s == seconds


def test_partitions_and_nodes_that_take_nothing_are_told() -> None:
    """Down, or all drained: jobs wait for an administrator."""
    down = replace(SITE, partitions={"low": replace(LOW, state="DOWN")})
    assert (_lines(down)["partition"].state, "DOWN" in _lines(down)["partition"].text) == ("warning", True)
    drained = replace(SITE, nodes=[replace(NODES, state="drained*")])
    assert _lines(drained)["partition"].next == "sinfo -p low -R"


def _look_here(runs_dir: Path, **settings: str) -> dict[str, Line]:
    environment = {"AAE_RUNS_DIR": str(runs_dir), **{f"AAE_{k.upper()}": v for k, v in settings.items()}}
    configuration = read_configuration(environment=environment)
    return {line.name: line for line in look_here(configuration, footprint(configuration.settings))}


def test_what_is_here_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    """A folder that is not there yet is made by submit, not by this."""
    found = _look_here(tmp_path / "a" / "runs")
    assert {found[name].state for name in ("run", "writable", "room", "data_set")} == {"ok"}
    assert "is made at submit" in found["writable"].text
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_here_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set, no folder, no room, no inodes, another run's settings, and what the shell asks sbatch for."""
    found = _look_here(tmp_path, dataset="mnist", data_dir=str(tmp_path))
    assert (found["data_set"].state, found["data_set"].next) == ("error", "aae-job fetch --dataset mnist")
    assert found["run"].state == "ok"
    (tmp_path / "file").touch()
    assert _look_here(tmp_path / "file" / "runs")["writable"].state == "error"
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    assert "AAE_SLURM_PARTITION" in _look_here(tmp_path)["shell"].text
    free = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize, f_files, f_favail, f_flag = 10, 4096, 100, 5, 0

    monkeypatch.setattr("os.statvfs", lambda _: Full)
    assert "are free" in _look_here(tmp_path)["room"].text
    Full.f_bavail = free.f_bavail
    room = _look_here(tmp_path, hidden_dim="4")["room"]
    assert (room.state, "room for 5 more" in room.text) == ("error", True)
    Full.f_flag = os.ST_RDONLY
    assert _look_here(tmp_path)["writable"].state == "error"


def test_a_filesystem_is_known_by_its_longest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks in mount points are written as octal numbers; the later of two mounts on one point is what is seen."""
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda rw",
        f"2 1 0:5 / {str(tmp_path).replace(' ', chr(92) + '040')} rw shared:1 - xfs x rw",
        f"3 1 0:5 / {tmp_path}/a\\040b rw shared:1 - nfs4 server:/x rw",
        f"4 1 0:5 / {tmp_path}/a\\040b rw - lustre x rw",
    ]
    read = Path.read_text
    table = "\n".join(lines)
    monkeypatch.setattr(Path, "read_text", lambda p, **k: table if p.name == "mountinfo" else read(p, **k))
    assert filesystem_of(tmp_path / "a b" / "runs") == "lustre"
    assert filesystem_of(tmp_path / "a") == "xfs"
    assert filesystem_of(Path("/usr")) == "ext4"
    (tmp_path / "a b").mkdir()
    assert _look_here(tmp_path / "a b")["runs_dir"].state == "ok"
    assert _look_here(tmp_path)["runs_dir"].next == here.ON_NODE


def test_a_line_is_wrapped_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes elsewhere is one line, whatever it holds."""
    line = Line("run", "error", "one\ntwo " + "words " * 30, "AAE_X=1")
    assert len(command.shown(line).splitlines()) == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, command.shown(line).splitlines())) <= 60


def test_a_run_with_other_settings_is_an_error(tmp_path: Path) -> None:
    """As submit would refuse it."""
    from job.segment.plan import plan_start

    plan = plan_start(read_configuration(environment={"AAE_RUNS_DIR": str(tmp_path), "AAE_RUN_NAME": "r"}))
    plan.run_dir.path.mkdir()
    plan.record.write(plan.run_dir)
    line = _look_here(tmp_path, run_name="r", seed="5")["run"]
    assert (line.state, "AAE_SEED" in line.text) == ("error", True)
    assert Settings().name in _look_here(tmp_path)["run"].text


def test_a_job_that_ends_without_a_word_is_told_by_what_it_printed(tmp_path: Path) -> None:
    """Its last lines; where nothing of it is seen the nodes have other files there."""
    check_dir = CheckDir(tmp_path)
    check_dir.slurm.mkdir()
    unseen = _ended_without_a_word(check_dir)
    assert (unseen.state, unseen.next) == ("error", "AAE_RUNS_DIR=... on a filesystem that the nodes share")
    (check_dir.slurm / "7_0_log.out").write_text("first\n\nModuleNotFoundError: torch\n")
    assert "ends with: first | ModuleNotFoundError: torch" in _ended_without_a_word(check_dir).text


def test_a_node_with_other_files_ends_at_once(tmp_path: Path, commands: Commands) -> None:
    """The request that it reads is not the one that it was sent with: nothing is written there."""
    commands.queue()
    with pytest.raises(SystemExit, match="other files there"):
        look(str(tmp_path), "1", {"SLURM_JOB_ID": "7"})
    assert list(tmp_path.iterdir()) == []
