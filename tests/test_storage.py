"""Storage that fails as real storage does: for a moment, by a quota, behind a stale handle, by an answer from a cache."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from commands import Commands
from jobs import Job, strace

from job.checkpoints import checkpoint as checkpoints
from job.checkpoints.checkpoint import load_newest, save_checkpoint
from job.checkpoints.saver import Saver
from job.errors import HopelessError, StorageError, TakenOverError
from job.log.writer import EventLog
from job.proofs.exactness import Traces
from job.proofs.verify import verify_run
from job.rundir import patience
from job.rundir.claim import claim_run, newest_claim
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.rundir.outbox import Outbox
from job.rundir.patience import at_start
from job.rundir.status import Status, write_status
from slurm.node import segment as segments
from slurm.node.restart import restart_unseen
from slurm.node.signals import AllocationStop
from slurm.node.start import Start

STATE: dict[str, Any] = {"model": {}}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """An empty one."""
    return RunDir(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up after a moment, by a clock that only its own pauses move."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(patience, "PATIENCE_S", 0.3)


def failing(times: int, number: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises an OSError so many times, and then does what it is to do."""
    left = [times]

    def call(*arguments: Any, **named: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return then(*arguments, **named)

    return call


# A moment is not a verdict


@pytest.mark.waits(23)
@pytest.mark.process
def test_a_start_waits_for_a_disk_that_fails_for_a_moment(small_job: Job, uninterrupted: Traces) -> None:
    """Every other look at what a start needs fails: nothing is lost, no checkpoint is set aside, nobody is told of damage."""
    small_job.interrupt(signal.SIGKILL, at_step=300)
    run_dir = small_job.run_dir
    paths = [
        run_dir.settings_file,
        run_dir.status_file,
        run_dir.claim_file(1),
        run_dir.events_file,
        run_dir.checkpoints,
        *(run_dir.checkpoint_file(step) for step in run_dir.checkpoint_steps()),
    ]
    error = random.choice(["EIO", "ESTALE", "EACCES"])
    small_job.prefix = strace("openat,stat,newfstatat,statx", f"error={error}:when=1..40+2", paths)
    assert small_job.run() == 0, small_job.output
    (resumed,) = small_job.events("resumed")
    assert resumed["from_step"] > 200
    assert not list(run_dir.checkpoints.glob("*.bad"))
    assert "bad_checkpoint" not in [record["reason"] for record in small_job.events("warning")]
    assert small_job.traces() == uninterrupted


def test_only_damage_sets_a_checkpoint_aside(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """One that cannot be read is waited for, then left where it is; where no other is read either, another start may do better."""
    for step in (10, 20):
        save_checkpoint(run_dir, step, STATE)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", failing(3, errno.EIO, read))
    state, bad = load_newest(run_dir, 20)
    assert state is not None
    assert (state["step"], bad) == (20, [])

    def of_older(path: Path) -> bytes:
        return read(path) if "10" in path.name else failing(1, errno.EIO, read)(path)

    monkeypatch.setattr(Path, "read_bytes", of_older)
    state, bad = load_newest(run_dir, 20)
    assert state is not None
    assert (state["step"], len(bad)) == (10, 1)
    monkeypatch.setattr(Path, "read_bytes", failing(10**6, errno.ESTALE, read))
    with pytest.raises(StorageError, match="Nothing is lost"):
        load_newest(run_dir, 20)
    assert run_dir.checkpoint_steps() == [20, 10]


def test_a_listing_that_fails_is_no_fresh_start(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """Where nobody can say which checkpoints there are, nobody starts again at step 0."""
    save_checkpoint(run_dir, 10, STATE)
    monkeypatch.setattr(Path, "iterdir", failing(10**6, errno.EIO, Path.iterdir))
    with pytest.raises(StorageError):
        load_newest(run_dir, None)


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StorageError), (errno.ENOSPC, HopelessError)])
def test_what_a_start_waits_for_in_vain(
    number: int, kind: type[Exception], run_dir: RunDir, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives no answer may give one elsewhere or later; a full one is full everywhere. Both tell while they wait."""
    monkeypatch.setattr(patience, "TOLD_AFTER_S", 0.1)
    told: list[str] = []
    with pytest.raises(kind):
        at_start(failing(10**6, number, print), run_dir, told.append)
    assert len(told) == 1
    assert os.strerror(number) in told[0]


def test_a_job_that_cannot_get_at_its_run_is_started_elsewhere(
    run_dir: RunDir, impatient: None, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings are gone with their disk: nothing is put on record, the job is requeued, and not to this node."""
    commands.shows({})
    commands.add("sbatch")  # there is another node
    away = RunDir(run_dir.path / "mount" / "run")
    start = Start("5", restart_count=2, local=False, number="5", node="n1")
    with AllocationStop() as stop:
        assert segments.run_segment(lambda: segments._plan_submitted(away), stop, start) == 1
    assert commands.calls[-4:] == [
        "sbatch --test-only --exclude=n1",
        "scontrol requeue 5",
        "scontrol update JobId=5 ExcNodeList=n1",
        "scontrol update JobId=5 Comment=aae:unseen:2",
    ]
    assert "could not be read or written" in capsys.readouterr().out
    assert not away.path.parent.exists()


def test_starts_that_cannot_get_at_the_run_are_counted_by_slurm(commands: Commands) -> None:
    """In a row: starts that got at it in between begin the count anew. A comment of the user's own stays."""
    commands.add("sbatch", "exit 1")  # there is no other node
    comment = "mine"
    for restart_count in (0, 1, 5, 6):
        commands.shows({"Comment": comment})
        assert restart_unseen(Start("5", restart_count, local=False, node="n1")) is None
        comment = commands.calls[-1].partition("Comment=")[2]
    assert comment == "mine;aae:unseen:0,1,5,6"
    commands.shows({"Comment": comment})
    refusal = restart_unseen(Start("5", 7, local=False, node="n1"))
    assert refusal is not None
    assert "3 starts in a row" in refusal
    assert restart_unseen(Start("5", 12, local=False, node="n1")) is None
    assert not [call for call in commands.calls if "ExcNodeList" in call]


# Quotas


def test_a_quota_that_only_the_write_knows_of(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checkpoints fit and the filesystem reports plenty of room: the older make room for the next, one at a time."""
    outbox = Outbox(run_dir)
    saver = Saver(run_dir, outbox, EventLog(run_dir, 1, outbox), 3)
    replace, quota = Path.replace, 3

    def within_quota(path: Path, target: Path) -> Path:
        if target.parent == run_dir.checkpoints and len(run_dir.checkpoint_steps()) >= quota:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", within_quota)
    for step in (10, 20, 30, 40, 50):
        assert saver.save_or_warn(step, lambda: STATE | {"pending": []})
    assert run_dir.checkpoint_steps() == [50, 40, 30]
    quota = 1
    assert not saver.save_or_warn(60, lambda: STATE | {"pending": []})
    assert run_dir.checkpoint_steps() == [50], "the newest good one never goes"
    quota = 2
    assert saver.save_or_warn(70, lambda: STATE | {"pending": []})
    assert run_dir.checkpoint_steps() == [70, 50]


# A log that is another file


def _lines(path: Path) -> list[int]:
    return [orjson.loads(line)["step"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("how", ["copied", "copied in the middle of a line", "rotated", "removed", "restored"])
def test_a_log_that_somebody_replaces_loses_nothing(how: str, run_dir: RunDir) -> None:
    """What is written between that and the next save goes to a file that nobody sees: it is written again, and told of."""
    outbox = Outbox(run_dir)
    log = EventLog(run_dir, 1, outbox)
    saver = Saver(run_dir, outbox, log, 3)
    path = run_dir.events_file
    for step in (1, 2):
        log.write("stopped", step=step, reason="cancel")
    outbox.sync()
    before = path.read_bytes()
    log.write("stopped", step=3, reason="cancel")
    content = path.read_bytes()
    if how == "rotated":
        path.rename(run_dir.path / "events.jsonl.1")
        path.touch()
    elif how == "removed":
        path.unlink()
    else:
        other = run_dir.path / "other"
        other.write_bytes({"copied": content, "restored": before}.get(how, content[:-20]))
        other.replace(path)
    log.write("stopped", step=4, reason="cancel")
    assert saver.save_or_warn(5, lambda: STATE | {"pending": []})
    log.write("stopped", step=6, reason="cancel")
    old = [] if how in ("rotated", "removed") else [1, 2]
    assert _lines(path) == [*old, 3, 4, 5, 5, 6]
    warnings = [orjson.loads(line).get("reason") for line in path.read_bytes().splitlines()]
    assert warnings.count("log_replaced") == 1
    assert not [finding for finding in verify_run(run_dir) if not finding.good]


def test_a_replaced_log_that_cannot_be_read_at_once_loses_nothing_either(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look at the new file fails: the next attempt finds what is missing there all the same."""
    outbox = Outbox(run_dir)
    log = EventLog(run_dir, 1, outbox)
    log.write("stopped", step=1, reason="cancel")
    run_dir.events_file.unlink()
    log.write("stopped", step=2, reason="cancel")
    monkeypatch.setattr(os, "pread", failing(1, errno.EIO, os.pread))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        outbox.flush()
    outbox.flush()
    assert _lines(run_dir.events_file) == [1, 2]


def test_a_handle_that_goes_stale_is_opened_anew(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some write on the descriptor answers ESTALE, the file is still there: nothing waits, nothing is doubled."""
    outbox = Outbox(run_dir)
    log = EventLog(run_dir, 1, outbox)
    write, stale = os.write, outbox._descriptor

    def on_nfs(descriptor: int, content: bytes) -> int:
        if descriptor == stale and len(_lines(run_dir.events_file)) >= 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", on_nfs)
    monkeypatch.setattr(os, "close", lambda _: None)  # so that its number is not given to the new one
    for step in range(1, 8):
        log.write("stopped", step=step, reason="cancel")
    assert outbox.error is None
    assert not outbox.items
    assert not outbox.replaced
    assert _lines(run_dir.events_file) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.process
def test_a_run_whose_log_is_replaced_goes_on_saving(small_job: Job, uninterrupted: Traces) -> None:
    """`cp` and `mv` while it trains: checkpoints go on, one warning, every record is there once."""
    process = small_job.start_to_rest(300)  # or a record between the two would be in the old one alone
    log = small_job.run_dir.events_file
    copy = log.with_name("x")
    copy.write_bytes(log.read_bytes())
    copy.replace(log)
    process.send_signal(signal.SIGCONT)
    assert small_job.wait(process) == 0, small_job.output
    assert [record["reason"] for record in small_job.events("warning")] == ["log_replaced"]
    assert small_job.traces() == uninterrupted


# Filesystems that cannot do everything


@pytest.mark.process
def test_a_filesystem_that_can_do_little_trains(small_job: Job, uninterrupted: Traces) -> None:
    """No sync of folders, no hard links, no touching, as on some FUSE, CIFS and Ceph mounts: the same bytes, one warning."""
    run_dir = small_job.run_dir
    small_job.prefix = strace("link,linkat,utimensat", "error=EOPNOTSUPP")
    assert small_job.run(max_steps=200) == 0, small_job.output
    folders = [run_dir.path, run_dir.checkpoints, run_dir.lattices, run_dir.claim_file(1).parent]
    small_job.prefix = strace("fsync", "error=EINVAL", folders)
    assert small_job.run() == 0, small_job.output
    assert [record["reason"] for record in small_job.events("warning")] == ["no_folder_sync"]
    assert small_job.traces() == uninterrupted


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_only_what_a_filesystem_cannot_do_is_let_pass(
    number: int, passes: bool, run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be synced is no error; one that the disk refuses to sync is, and so is any file."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if passes:
        run_dir.replace(run_dir.settings_file, b"x")
        assert run_dir.cannot_sync
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            run_dir.replace(run_dir.settings_file, b"x")


# The fence


def _elsewhere() -> Owner:
    return Owner.this_process().model_copy(update={"host": "elsewhere", "pid": 4242})


def test_a_stale_answer_lets_nobody_write(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's cache still says that there is no later claim: whoever was taken over neither writes nor removes."""
    first = claim_run(run_dir, _elsewhere())
    run_dir.fence = first.check
    save_checkpoint(run_dir, 10, STATE)
    write_status(run_dir, Status(state="waiting", total_steps=9, segment=1))
    monkeypatch.setattr("job.rundir.claim.TAKEOVER_S", 0.1)
    newer = RunDir(run_dir.path)
    second = claim_run(newer, Owner.this_process())
    second.shut_out_earlier()
    newer.fence = second.check
    save_checkpoint(newer, 20, STATE)
    looked_at = Path.stat

    def from_cache(path: Path, **named: Any) -> os.stat_result:
        if path == run_dir.claim_file(2):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return looked_at(path, **named)

    monkeypatch.setattr(Path, "stat", from_cache)
    for attempt in (
        lambda: checkpoints.prune(run_dir, 1, 10),
        lambda: checkpoints.make_room(run_dir, 20),
        lambda: run_dir.clear_temporaries(),
        lambda: run_dir.remove_folder(run_dir.checkpoints),
        lambda: save_checkpoint(run_dir, 30, STATE),
    ):
        with pytest.raises(TakenOverError):
            attempt()
    assert sorted(path.name for path in run_dir.checkpoints.iterdir()) == [
        "step-000000000010.pt",
        "step-000000000020.pt",
    ]
    newer.fence()


@pytest.fixture
def two_views(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """One folder as two nodes see it whose clients answer from their caches for a minute, what is not there as well."""
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists() or os.geteuid() != 0:
        pytest.skip("needs bindfs, /dev/fuse and root")
    (tmp_path / "server").mkdir()
    views = (tmp_path / "one", tmp_path / "other")
    for view in views:
        view.mkdir()
        caches = "negative_timeout=60,entry_timeout=60,attr_timeout=60"
        subprocess.run(["bindfs", "-o", caches, str(tmp_path / "server"), str(view)], check=True)
    yield views
    for view in views:
        subprocess.run(["umount", "--lazy", str(view)], check=True)


@pytest.mark.process
def test_the_fence_holds_where_a_client_caches_what_is_not_there(
    two_views: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real filesystem with such a cache: the next claim cannot be seen for a minute, and still nothing more is written."""
    monkeypatch.setattr("job.rundir.claim.TAKEOVER_S", 0.5)
    old, new = (RunDir(view / "run") for view in two_views)
    old.path.mkdir()
    first = claim_run(old, _elsewhere())
    old.fence = first.check
    save_checkpoint(old, 10, STATE)
    assert not old.claim_file(2).exists()  # which the client remembers
    second = claim_run(new, Owner.this_process())
    second.shut_out_earlier()
    new.fence = second.check
    save_checkpoint(new, 20, STATE)
    assert second.number == 2
    assert not old.claim_file(2).exists(), "this client does not cache, so nothing is shown"
    for attempt in (
        lambda: checkpoints.prune(old, 1, 10),
        lambda: save_checkpoint(old, 30, STATE),
        lambda: old.clear_temporaries(),
    ):
        with pytest.raises(TakenOverError):
            attempt()
    assert new.checkpoint_steps() == [20, 10]
    new.fence()


def test_a_run_that_is_away_is_not_taken_over(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its directory nobody can say who may write: that is waited for. The same for a handle that is stale."""
    claim = claim_run(run_dir, Owner.this_process())
    claims = run_dir.claim_file(1).parent
    claims.rename(run_dir.path / "away")
    with pytest.raises(FileNotFoundError):
        claim.check()
    (run_dir.path / "away").rename(claims)
    claim.check()
    monkeypatch.setattr(os, "utime", failing(1, errno.ESTALE, os.utime))
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        claim.check()
    claim.check()


def test_whoever_claims_takes_the_passes_of_all_before(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that died between its claim and that may have left an earlier one alive."""
    monkeypatch.setattr("job.rundir.claim.TAKEOVER_S", 0.1)
    claims = [claim_run(run_dir, _elsewhere()) for _ in range(3)]
    claims[2].shut_out_earlier()
    assert newest_claim(run_dir) == 3
    assert [run_dir.pass_file(number).exists() for number in (1, 2, 3)] == [False, False, True]
