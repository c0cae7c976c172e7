"""`aae-slurm collect`: whole files, again only what has changed, nothing of others touched, and gone on with after anything."""

import csv
import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from commands import Commands
from made_runs import LATTICES, claim, line, make_run, step_line, write_lattice
from PIL import Image

from job.errors import UsageError
from job.rundir.directory import RunDir
from job.rundir.status import Status, write_status
from slurm.login import collect
from slurm.login.keeping import film
from slurm.login.keeping.film import MAX_FRAMES, evenly, make_film

KEPT = {
    *(f"lattices/step-{step:012d}.png" for step in LATTICES),
    *("weights.safetensors", "lattices.gif", "contact-sheet.png", "curves.png", "metrics.csv", "evaluations.csv"),
    *("segments.csv", "settings.json", "report.html", "manifest.json", "SHA256SUMS", "summary.json", "samples.png"),
    "codes.npz",
}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A made-up run that is finished."""
    return make_run(tmp_path / "runs")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to collect to; it is not there yet."""
    return tmp_path / "out"


def _files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def _collect(run_dir: RunDir, out: Path) -> int:
    return collect.run([str(run_dir.path), str(out)])


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_all_that_one_keeps_is_there_with_its_digest(run_dir: RunDir, out: Path) -> None:
    """The names that the contract fixes; the manifest and SHA256SUMS name each file, the latter all but itself."""
    assert _collect(run_dir, out) == 0
    found = _files(out / "made")
    assert set(found) == KEPT
    sums = {text[66:]: text[:64] for text in found["SHA256SUMS"].decode().splitlines()}
    assert sums == {n: hashlib.sha256(c).hexdigest() for n, c in found.items() if n != "SHA256SUMS"}
    assert orjson.loads(found["manifest.json"])["files"] == {n: s for n, s in sums.items() if n != "manifest.json"}
    assert found["weights.safetensors"] == b"weights"
    assert [row["step"] for row in _rows(out / "made" / "metrics.csv")] == ["50", "100", "150", "200", "250", "300"]
    assert [row["step"] for row in _rows(out / "made" / "evaluations.csv")] == ["100", "200", "300"]


@pytest.mark.process
def test_sha256sum_reads_the_sums(run_dir: RunDir, out: Path) -> None:
    """Without anything of ours, whatever is in a name."""
    (run_dir.final / "a\\b\nc.txt").write_text("odd")
    assert _collect(run_dir, out) == 0
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=out / "made", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": OK")) == (0, len(KEPT))


def test_segments_say_why_each_ended_and_what_that_cost(run_dir: RunDir, out: Path) -> None:
    """A row each, also where superseded records alone tell of it."""
    _collect(run_dir, out)
    first, second = _rows(out / "made" / "segments.csv")
    assert (first["cause"], first["steps_lost"], first["seconds_lost"], first["wait_s"]) == ("killed", "50", "5.0", "")
    assert (first["from_step"], first["last_step"], first["started"][14:19]) == ("0", "200", "00:00")
    assert (second["cause"], second["from_step"], second["wait_s"]) == ("finished", "150", "20.0")


def test_steps_are_those_of_the_segment_that_did_them(run_dir: RunDir, out: Path) -> None:
    """Where the one between died before its first record, too."""
    claim(run_dir, 4, from_step=250)
    with run_dir.events_file.open("ab") as log:
        log.write(
            line("resumed", 250, 4, 90, from_step=250, previous="was killed", steps_lost=50, seconds_lost=7.0, host="n")
        )
    _collect(run_dir, out)
    _, second, third, fourth = _rows(out / "made" / "segments.csv")
    assert (second["segment"], second["steps_lost"], second["seconds_lost"]) == ("2", "50", "7.0")
    assert (third["cause"], third["steps_lost"]) == ("killed", "0")
    assert fourth["from_step"] == "250"


def test_a_segment_that_failed_says_of_what(run_dir: RunDir, out: Path) -> None:
    """In the word of its record: the claim knows only that no restart helps."""
    claim(run_dir, 2, from_step=150, cause="hopeless")
    with run_dir.events_file.open("ab") as log:
        log.write(line("failed", 300, 2, 62, reason="nonfinite_loss"))
    _collect(run_dir, out)
    assert _rows(out / "made" / "segments.csv")[-1]["cause"] == "nonfinite_loss"


def test_a_folder_that_cannot_be_looked_into_costs_no_other(
    run_dir: RunDir, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with exit code 1."""

    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == run_dir.lattices:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert _collect(run_dir, out) == 1
    assert "lattices/ is left out: Permission denied" in capsys.readouterr().err
    assert {"weights.safetensors", "report.html", "SHA256SUMS"} <= set(_files(out / "made"))


def test_again_nothing_is_written_but_what_has_changed(
    run_dir: RunDir, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lattices size and time are looked at, of all else every byte; the log is read again only if it has changed."""
    _collect(run_dir, out)
    before = {path: path.stat().st_ino for path in (out / "made").rglob("*")}
    capsys.readouterr()
    read: list[str] = []
    real = hashlib.file_digest

    def file_digest(file: Any, name: str) -> Any:
        read.append(file.name)
        return real(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", file_digest)
        code = _collect(run_dir, out)
    assert code == 0
    assert read
    assert _collect(run_dir, out) == 0
    assert f"0 written, {len(KEPT) - 2} unchanged\n" in capsys.readouterr().out
    assert {path: path.stat().st_ino for path in (out / "made").rglob("*")} == before
    assert not [name for name in read if "lattices/" in str(name)]

    then = run_dir.final_weights.stat()
    run_dir.final_weights.write_bytes(b"heights")
    os.utime(run_dir.final_weights, ns=(then.st_mtime_ns, then.st_mtime_ns))
    write_lattice(run_dir.lattice_file(400), 400)
    with run_dir.events_file.open("ab") as log:
        log.write(step_line(350, 2, 70))
    assert _collect(run_dir, out) == 0
    # weights, lattice, the two pictures of lattices, metrics, segments, page
    assert "7 written, 9 unchanged\n" in capsys.readouterr().out
    assert (out / "made" / "weights.safetensors").read_bytes() == b"heights"
    assert [row["step"] for row in _rows(out / "made" / "metrics.csv")][-1] == "350"


def test_a_damaged_copy_is_made_good(run_dir: RunDir, out: Path) -> None:
    """Also of what is not read again, if its time tells."""
    _collect(run_dir, out)
    whole = _files(out / "made")
    for name in ("weights.safetensors", "metrics.csv", "lattices.gif", "lattices/step-000000000100.png"):
        os.truncate(out / "made" / name, 3)
    assert _collect(run_dir, out) == 0
    found = _files(out / "made")
    assert {n: c for n, c in found.items() if n != "report.html"}.keys() == whole.keys() - {"report.html"}
    for name in ("weights.safetensors", "metrics.csv", "lattices.gif", "lattices/step-000000000100.png"):
        assert found[name] == whole[name]


@pytest.mark.process
def test_a_collect_that_is_killed_at_any_write_is_gone_on_with(tmp_path: Path) -> None:
    """Every file is whole or not there at every moment; afterwards nothing half is left, and nothing was taken for foreign."""
    run_dir = make_run(tmp_path / "runs")
    _collect(run_dir, tmp_path / "whole")
    whole = _files(tmp_path / "whole" / "made")
    for number in range(0, 18, 4):  # 0 and 16: before the first, and before the last but one
        out = tmp_path / f"out{number}"
        assert _dies_at_write(number, run_dir, out)
        changing = ("report.html", "manifest.json", "SHA256SUMS")
        for name, content in _files(out / "made").items():
            assert name.endswith(".collecting") or name in changing or content == whole[name], name
        assert _collect(run_dir, out) == 0
        found = _files(out / "made")
        assert found.keys() == whole.keys()
        assert not [name for name in whole if name not in changing and found[name] != whole[name]]


# A collect that is gone, with no word, when a file is to take its place after so many others.
DYING = """
import os, sys
from pathlib import Path
from slurm.login import collect

left = iter(range(int(sys.argv[1])))

def replace(temporary, target):
    if next(left, None) is None:
        os._exit(9)
    temporary.rename(target)

Path.replace = replace
collect.run(sys.argv[2:])
"""


def _dies_at_write(number: int, run_dir: RunDir, out: Path) -> bool:
    command = [sys.executable, "-P", "-c", DYING, str(number), str(run_dir.path), str(out)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 9


def test_what_the_disk_refuses_costs_nothing_else(
    run_dir: RunDir, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that does not fit is named, with exit code 1; what is small is kept, and the rest comes with the next collect."""
    run_dir.final_weights.write_bytes(bytes(300_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert _collect(run_dir, out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capsys.readouterr()
    assert "weights.safetensors is left out: File too large" in told.err
    assert "1 failed" in told.out
    assert set(_files(out / "made")) == KEPT - {"weights.safetensors"}
    assert _collect(run_dir, out) == 0
    assert set(_files(out / "made")) == KEPT


def test_what_others_have_put_there_is_left_alone(
    run_dir: RunDir, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file under a name that is wanted is told and not replaced; any other is nobody's business; a foreign list is refused."""
    (out / "made" / "lattices").mkdir(parents=True)
    for name in ("metrics.csv", "notes.txt", "lattices/mine.png", ".x.collecting"):
        (out / "made" / name).write_text("mine")
    for _ in range(2):
        assert _collect(run_dir, out) == 1
        assert "metrics.csv is left out: what stands there no collect has put there" in capsys.readouterr().err
    found = _files(out / "made")
    assert {n for n, content in found.items() if content == b"mine"} == {
        "metrics.csv", "notes.txt", "lattices/mine.png", ".x.collecting",
    }  # fmt: skip
    assert len(found) == len(KEPT) + 3
    (out / "made" / "metrics.csv").unlink()
    assert _collect(run_dir, out) == 0
    (out / "other" / "made").mkdir(parents=True)
    (out / "other" / "made" / "manifest.json").write_text('{"name": "an app"}')
    assert _collect(run_dir, out / "other") == 1
    assert "is not what a collect has written" in capsys.readouterr().err
    assert len(_files(out / "other")) == 1


def test_a_folder_that_would_hurt_a_run_is_refused(run_dir: RunDir, tmp_path: Path) -> None:
    """Inside of any run, the run itself by way of its runs_dir or a link; two runs of one name; a file, a link to nothing."""
    (tmp_path / "link").symlink_to(run_dir.path)
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    before = _files(run_dir.path)
    other = make_run(tmp_path / "others")  # what `collect runs/*` without a folder takes for it
    for place in (run_dir.path, run_dir.path / "kept", tmp_path / "link" / "kept", run_dir.path.parent, other.path):
        with pytest.raises(UsageError, match="would write into the run"):
            _collect(run_dir, place)
    for place in (run_dir.events_file, tmp_path / "lost"):
        with pytest.raises(UsageError, match="which is no folder"):
            _collect(run_dir, place)
    with pytest.raises(UsageError, match="two runs are called made"):
        collect.run([str(run_dir.path), str(other.path), str(tmp_path / "out")])
    assert _files(run_dir.path) == before


def test_another_run_of_the_same_name_is_not_mixed_in(
    run_dir: RunDir, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was removed and made anew, also where a collect has seen it before it began; one that was moved goes on."""
    assert _collect(run_dir, out) == 0
    (tmp_path / "elsewhere").mkdir()
    moved = RunDir(run_dir.path.rename(tmp_path / "elsewhere" / "made"))
    anew = make_run(run_dir.path.parent)
    first = anew.claim_file(1).read_bytes()
    anew.claim_file(1).unlink()
    assert _collect(anew, out) == 0
    anew.claim_file(1).write_bytes(first.replace(b'"process_start":"', b'"process_start":"1'))
    before = _files(out)
    assert _collect(anew, out) == 1
    assert "is of another run of this name" in capsys.readouterr().err
    assert _files(out) == before
    assert _collect(moved, out) == 0


def test_a_run_that_goes_on_is_collected_as_it_stands(
    run_dir: RunDir,
    out: Path,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is pruned while it is looked at is no failure, what an earlier collect has kept of it stays; a torn line waits."""
    _collect(run_dir, out)
    for path in run_dir.final.iterdir():
        path.unlink()
    run_dir.final.rmdir()
    write_status(run_dir, Status(state="running", job_id="7", step=350, total_steps=600, segment=3))
    commands.add("squeue", "exit 1")
    with run_dir.events_file.open("ab") as log:
        log.write(line("resumed", 300, 3, 90, from_step=300, steps_lost=0, seconds_lost=0.0, host="n") + b'{"time"')
    looked_at = Path.stat
    pruned = run_dir.lattice_file(200)

    def prune(path: Path, **named: Any) -> os.stat_result:
        if path == pruned:
            path.unlink(missing_ok=True)
        return looked_at(path, **named)

    monkeypatch.setattr(Path, "stat", prune)
    assert _collect(run_dir, out) == 0
    told = capsys.readouterr()
    assert (told.err, "those here are of an earlier end" in told.out) == ("", True)
    manifest = orjson.loads((out / "made" / "manifest.json").read_bytes())
    assert (manifest["state"], "weights.safetensors" in manifest["kept"]) == ("running", True)
    assert set(_files(out / "made")) == KEPT
    assert _rows(out / "made" / "segments.csv")[-1]["cause"] == "running"


def test_damage_of_the_log_is_told_every_time(run_dir: RunDir, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And one run that cannot be collected, or a page that cannot be made of what its log says, costs no other."""
    with run_dir.events_file.open("ab") as log:
        log.write(b"\0\0\n")
    bad = make_run(run_dir.path.parent, "bad")
    (out / "bad").parent.mkdir()
    (out / "bad").write_text("in the way")
    odd = make_run(run_dir.path.parent, "odd")
    with odd.events_file.open("ab") as log:
        log.write(line("resumed", 300, 3, 90, from_step=300, steps_lost="many"))
    for _ in range(2):
        assert collect.run([str(bad.path), str(odd.path), str(run_dir.path), str(out)]) == 1
        told = capsys.readouterr().err
        assert f"bad cannot be kept whole in {out}" in told
        assert "odd: report.html is left out: it cannot be made of what is there (TypeError in " in told
        assert "a line of" in told
    assert (out / "odd" / "SHA256SUMS").is_file()
    assert (out / "made" / "report.html").is_file()


def test_the_animation_shows_each_lattice_pixel_by_pixel(tmp_path: Path) -> None:
    """Grey levels as they are; an equal one stands longer; of another size or damaged is left out, and told."""
    steps = [100, 200, 300, 400]
    paths = {step: tmp_path / f"{step}.png" for step in [*steps, 500, 600, 700]}
    for step in steps:
        write_lattice(paths[step], step)
    write_lattice(paths[500], 400)
    write_lattice(paths[600], 600, side=56)
    paths[700].write_bytes(paths[100].read_bytes()[:200])
    write_lattice(tmp_path / "last.png", 8)
    made = make_film({**paths, 800: tmp_path / "last.png"})
    (tmp_path / "x.gif").write_bytes(made.gif)
    with Image.open(tmp_path / "x.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 5  # 400 and 500 are one
        for number, step in enumerate([*steps, 8]):
            animation.seek(number)
            with Image.open(paths[step] if step != 8 else tmp_path / "last.png") as lattice:
                assert np.array_equal(np.asarray(animation.convert("L")), np.asarray(lattice))
    assert made.left_out == "1 lattice is left out (damaged), 1 lattice is left out (of another size than the last)"


@pytest.mark.parametrize(("steps", "most"), [([], 5), ([7], 5), (range(1, 1001), 100), (range(0, 10**6, 500), 25)])
def test_few_of_many_steps_are_even_in_the_logarithm(steps: list[int], most: int) -> None:
    """All of few; of many the first and the last, each once, closer together early on."""
    chosen = evenly(steps, most)
    assert 0.9 * min(most, len(steps)) <= len(chosen) <= most
    assert chosen == sorted(set(chosen))
    assert chosen[:1] == list(steps[:1])
    assert chosen[-1:] == list(steps[-1:])
    if len(steps) > most:
        gaps = np.diff(chosen)
        assert gaps[0] <= gaps[len(gaps) // 2] < gaps[-1]


@pytest.mark.parametrize(("limit", "most"), [("MAX_FRAMES", 4), ("MAX_PIXELS", 4 * 28 * 28 + 1)])
def test_an_animation_is_no_longer_than_somebody_looks_or_memory_lasts(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many are left out is told."""
    monkeypatch.setattr(film, limit, most)
    for step in range(1, 11):
        write_lattice(tmp_path / f"{step}.png", step)
    made = make_film({step: tmp_path / f"{step}.png" for step in range(1, 11)})
    (tmp_path / "x.gif").write_bytes(made.gif)
    with Image.open(tmp_path / "x.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 4 < MAX_FRAMES
    assert made.left_out is not None
    assert "6 lattices are left out" in made.left_out


def test_several_runs_are_compared_beside_their_folders(
    run_dir: RunDir, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page and a table; again: left as they are; one of somebody else's is not replaced."""
    other = make_run(run_dir.path.parent, "other", seed=1)
    both = [str(run_dir.path), str(other.path), str(out)]
    assert collect.run(both) == 0
    (row,) = _rows(out / "comparison.csv")
    assert (row["runs"], row["n"], row["verdicts"]) == ("made other", "2", "2 of 2 saturated")
    page = (out / "comparison.html").read_bytes()
    assert collect.run(both) == 0
    assert "comparison: unchanged" in capsys.readouterr().out
    assert (out / "comparison.html").read_bytes() == page
    (out / "comparison.html").write_text("mine")
    assert collect.run(both) == 1
    assert (out / "comparison.html").read_text() == "mine"
