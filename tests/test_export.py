"""`aae-slurm export`: what TensorBoard's own reader finds in it, and what happens without TensorBoard."""

import sys
from pathlib import Path
from typing import Any

import pytest
from made_runs import LATTICES, line, make_run, step_line

from job.rundir.directory import RunDir
from job.rundir.small_file import names_in
from slurm.__main__ import main


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A made-up run of two segments; its log names a lattice for each that it has, and one that is gone."""
    run_dir = make_run(tmp_path / "runs")
    with run_dir.events_file.open("ab") as log:
        log.writelines(line("lattice", step, 2, 62, file=f"lattices/{step}.png") for step in (*LATTICES, 400))
    return run_dir


def _export(run_dir: RunDir, out: Path) -> int:
    return main(["export", str(run_dir.path), "--tensorboard", str(out)])


def _read(folder: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0})  # 0 is all
    found.Reload()
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what TensorBoard loads
def test_tensorboard_finds_the_records_that_count_and_the_lattices_as_they_are(
    run_dir: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At their steps and times; of a list each number; what is gone is told."""
    out = tmp_path / "boards"
    assert _export(run_dir, out) == 0
    told = capsys.readouterr()
    assert "made: 66 points of curves, 3 lattices" in told.out
    assert "gone or damaged, and left out: 1" in told.err
    found = _read(out / "made")
    losses = found.Scalars("step/reconstruction_loss")
    assert [point.step for point in losses] == [50, 100, 150, 200, 250, 300]  # 200 once, of the segment that counts
    assert losses[0].value == pytest.approx(0.4)
    assert losses[-1].wall_time == 1767225660.0  # 2026-01-01T00:01:00Z
    assert [point.step for point in found.Scalars("evaluation/code_cov_eigenvalues/1")] == [100, 200, 300]
    images = found.Images("lattice")
    assert [image.step for image in images] == list(LATTICES)
    assert images[0].encoded_image_string == run_dir.lattice_file(100).read_bytes()


def test_again_it_takes_the_place_of_what_it_wrote(
    run_dir: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same log gives the same bytes; one that has grown a file of another name, as a TensorBoard that looks on needs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "boards" / "made"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1700000000.host").write_bytes(b"mine")
    (folder / ".events.out.tfevents.000000000700.aae.0a1b2c3d.tmp").write_bytes(b"of an export that was killed")
    found = []
    for _ in range(3):
        assert _export(run_dir, Path("~/boards")) == 0
        (name,) = [name for name in names_in(folder) if name.endswith(".aae")]
        found.append((name, (folder / name).read_bytes()))
        if len(found) == 2:
            with run_dir.events_file.open("ab") as log:
                log.write(step_line(350, 2, 70))
    assert found[0] == found[1]
    assert found[2][0] > found[1][0]
    assert len(names_in(folder)) == 2  # and that of somebody else


@pytest.mark.parametrize("raises", ["ImportError('no such thing')", "TypeError('no such thing\\nat length')"])
def test_without_the_library_it_says_which(
    raises: str, run_dir: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is there and breaks, as it does beside a protobuf of another time. Exit code 1, nothing written."""
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tensorboard.py").write_text(f"raise {raises}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _export(run_dir, tmp_path / "boards") == 1
    assert "needs the package tensorboard (no such thing): pip install" in capsys.readouterr().err
    assert not (tmp_path / "boards").exists()


@pytest.mark.parametrize("case", ["file", "run", "runs", "in run", "no log"])
def test_where_it_cannot_go_is_told(
    case: str, run_dir: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; what stands there stays."""
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "made").write_text("mine")
    inside = {"run": run_dir.path, "runs": run_dir.path.parent, "in run": run_dir.path / "boards"}
    out = inside.get(case, tmp_path / "boards")
    if case == "no log":
        run_dir.events_file.unlink()
    assert _export(run_dir, out) == 2
    words = {"file": "is a file", "no log": "has no log yet"}.get(case, f"would write into the run {run_dir.path}")
    assert words in capsys.readouterr().err
    assert (tmp_path / "boards" / "made").read_text() == "mine"
