"""Checkpoints: whole or absent, every damage found, nothing in them executed."""

import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from job.checkpoints.checkpoint import load_newest, make_room, prune, read_checkpoint, save_checkpoint
from job.errors import CheckpointError, HopelessError, UsageError
from job.rundir.directory import RunDir

STATE = {"model": {"w": torch.arange(300.0)}, "elapsed_s": 1.5, "pending": [(None, b"line\n")]}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A run directory with a checkpoint at step 10 and one at 20."""
    run_dir = RunDir(tmp_path)
    for step in (10, 20):
        save_checkpoint(run_dir, step, STATE)
    return run_dir


def test_a_checkpoint_is_read_as_it_was_written_and_by_torch_alone(run_dir: RunDir) -> None:
    """The state comes back; `torch.load` reads the same file; `zipinfo -z` shows the digest."""
    path = run_dir.checkpoint_file(20)
    state = read_checkpoint(path)
    assert state["step"] == 20
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])  # type: ignore[index]
    assert state["pending"] == [(None, b"line\n")]
    assert torch.load(path, weights_only=True)["elapsed_s"] == 1.5
    saved = save_checkpoint(run_dir, 30, STATE)
    with zipfile.ZipFile(saved.path) as archive:
        assert archive.comment.decode() == saved.sha256
    assert saved.size_bytes == saved.path.stat().st_size


@pytest.mark.campaign
def test_every_flipped_bit_and_every_truncation_is_found(
    run_dir: RunDir, size: int, tell: Callable[[str], None]
) -> None:
    """No byte of the file is outside the digest: each single flip and each cut is refused."""
    path = run_dir.checkpoint_file(20)
    good = path.read_bytes()
    places = [*range(20), *range(len(good) - 100, len(good)), *random.choices(range(len(good)), k=5 * size)]
    for position in places:
        damaged = bytearray(good)
        damaged[position] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(path)
    lengths = [0, 1, 64, 66, len(good) - 1, *random.choices(range(len(good)), k=5 * size)]
    for length in lengths:
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(good)
    read_checkpoint(path)
    tell(f"{len(places)} flipped bits and {len(lengths)} truncations, all found")


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_hostile_pickle_is_refused_and_not_executed(run_dir: RunDir, tmp_path: Path) -> None:
    """Even with a right digest a checkpoint can only hold data."""
    trap = tmp_path / "executed"
    saved = save_checkpoint(run_dir, 30, {"model": _Hostile(trap)})
    with pytest.raises(CheckpointError, match="is refused"):
        read_checkpoint(saved.path)
    assert not trap.exists()
    torch.load(saved.path, weights_only=False)
    assert trap.exists(), "the trap must work, or this test shows nothing"
    saved.path.write_bytes(pickle.dumps(_Hostile(trap)))
    with pytest.raises(CheckpointError):
        read_checkpoint(saved.path)


def test_loading_falls_back_and_keeps_the_bad_ones_aside(run_dir: RunDir) -> None:
    """Newest first; a damaged one is renamed with its content; one missing from a listing is found by name."""
    content = run_dir.checkpoint_file(20).read_bytes()
    run_dir.checkpoint_file(20).write_bytes(content[:-1])
    state, bad = load_newest(run_dir, known_step=20)
    assert state is not None
    assert state["step"] == 10
    assert len(bad) == 1
    assert (run_dir.checkpoints / "step-000000000020.pt.bad").read_bytes() == content[:-1]
    run_dir.checkpoint_file(10).unlink()
    with pytest.raises(HopelessError, match="though there has been one"):
        load_newest(run_dir, known_step=None)


def test_a_run_without_a_checkpoint_starts_fresh(tmp_path: Path) -> None:
    """Only where there has never been one."""
    assert load_newest(RunDir(tmp_path), None) == (None, [])


def test_a_checkpoint_of_another_format_is_left_alone(run_dir: RunDir) -> None:
    """A newer version's checkpoint is not damage: it is refused with what to install, and not renamed."""
    save_checkpoint(run_dir, 30, {"format": 99})
    with pytest.raises(UsageError, match="has format 99"):
        load_newest(run_dir, 30)
    assert run_dir.checkpoint_file(30).exists()


def test_a_write_that_fails_leaves_nothing_under_the_final_name(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes out, what stood there stands, and no temporary stays."""
    import os

    before = run_dir.checkpoint_file(20).read_bytes()

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    for step in (20, 30):
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(run_dir, step, STATE)
    assert run_dir.checkpoint_file(20).read_bytes() == before
    assert sorted(p.name for p in run_dir.checkpoints.iterdir()) == ["step-000000000010.pt", "step-000000000020.pt"]


def test_pruning_keeps_the_newest(run_dir: RunDir) -> None:
    """Only as many as asked for stay, the newest."""
    save_checkpoint(run_dir, 30, STATE)
    prune(run_dir, 2, 30)
    assert run_dir.checkpoint_steps() == [30, 20]


def test_a_checkpoint_of_a_given_up_segment_is_set_aside(run_dir: RunDir) -> None:
    """One that appears after the run has gone on from an earlier step must never be gone on from: the log has a gap there."""
    save_checkpoint(run_dir, 15, STATE)
    prune(run_dir, 2, 15)
    assert run_dir.checkpoint_steps() == [15, 10]
    assert (run_dir.checkpoints / "step-000000000020.pt.late").exists()


def test_room_is_made_of_the_older_ones_one_at_a_time(run_dir: RunDir) -> None:
    """The oldest goes first; the verified one stays whatever the need."""
    save_checkpoint(run_dir, 30, STATE)
    assert make_room(run_dir, 30)
    assert run_dir.checkpoint_steps() == [30, 20]
    assert make_room(run_dir, 30)
    assert not make_room(run_dir, 30)
    assert run_dir.checkpoint_steps() == [30]
