"""The real command: starts, stops, resumes, refuses."""

import gc
import os
import random
import shutil
import signal
import stat
from pathlib import Path

import jsonschema
import numpy as np
import orjson
import pytest
from jobs import TOTAL, Job, small_settings
from PIL import Image

from job.commands import train
from job.loading import loading
from job.log.events import events_schema
from job.proofs.exactness import Traces

pytestmark = pytest.mark.process

# What a stop by each signal must look like: (exit code, reason in `stopped`).
POLITE = {
    signal.SIGINT: (130, "interrupt"),
    signal.SIGTERM: (75, "terminated"),
    signal.SIGHUP: (75, "terminated"),
    signal.SIGUSR1: (75, "terminated"),
    signal.SIGUSR2: (75, "terminated"),
}


def test_a_run_leaves_all_that_the_run_directory_promises(small_job: Job) -> None:
    """One command ends with exit code 0, whole results and every due record and picture."""
    assert small_job.run() == 0, small_job.output
    assert small_job.output.startswith("this trains here, on ") == train.is_beside_cluster()
    run_dir = small_job.run_dir
    assert sorted(p.name for p in run_dir.final.iterdir()) == [
        *("codes.npz", "curves.png", "lattice.png", "samples.png", "summary.json", "weights.safetensors")
    ]
    assert [r["step"] for r in small_job.events("step")] == list(range(7, TOTAL + 1, 7))
    assert [r["step"] for r in small_job.events("lattice")] == list(range(100, TOTAL + 1, 100))
    assert len(list(run_dir.checkpoints.iterdir())) == 1
    assert run_dir.latest_lattice.read_bytes() == run_dir.lattice_file(TOTAL).read_bytes()
    status = small_job.status()
    assert (status["state"], status["exit_code"], status["step"]) == ("finished", 0, TOTAL)
    for word in ("lattice.png", "weights.safetensors", "events.jsonl", "next:"):
        assert word in small_job.output
    assert not list(run_dir.path.rglob(".*.tmp")), "temporaries were left behind"
    with Image.open(run_dir.final_lattice) as picture:
        assert (picture.mode, picture.size) == ("L", (4 * 28, 4 * 28))
        assert picture.text == {"step": str(TOTAL), "extent": "1.0", "latent_dim": "2", "mode": "unit"}  # type: ignore[attr-defined]


def test_signals_save_and_stop_and_the_same_command_goes_on_to_the_same_bytes(
    small_job: Job, uninterrupted: Traces
) -> None:
    """Each polite stop, at a random moment, loses no step; the log is strict JSON and holds to the printed schema."""
    numbers = random.sample(sorted(POLITE), len(POLITE))
    for segment, number in enumerate(numbers, start=1):
        exit_code, reason = POLITE[number]
        begun = small_job.status()["step"] if segment > 1 else 0
        assert small_job.interrupt(number, begun + random.randrange(20, 100)) == exit_code, small_job.output
        stopped = small_job.events("stopped")[-1]
        status = small_job.status()
        assert (stopped["segment"], stopped["reason"], status["reason"]) == (segment, reason, reason), number.name
        assert (status["state"], status["exit_code"], status["step"]) == ("waiting", exit_code, stopped["step"])
    assert small_job.run() == 0, small_job.output
    assert [record["signal"] for record in small_job.events("signal")] == [number.name for number in numbers]
    stops, resumes = small_job.events("stopped"), small_job.events("resumed")
    assert [resumed["from_step"] for resumed in resumes] == [stopped["step"] for stopped in stops]
    assert {(resumed["steps_lost"], resumed["seconds_lost"]) for resumed in resumes} == {(0, 0)}
    assert small_job.traces() == uninterrupted
    _satisfies_the_schema(small_job)


def _satisfies_the_schema(job: Job) -> None:
    schema = jsonschema.Draft202012Validator(events_schema())
    lines = job.run_dir.events_file.read_bytes().splitlines(keepends=True)
    for line in lines:
        assert line.endswith(b"\n")
        schema.validate(orjson.loads(line))
    names = {orjson.loads(line)["event"] for line in lines}
    assert names == {"started", "resumed", "step", "lattice", "checkpoint", "signal", "stopped", "finished"}
    with pytest.raises(jsonschema.ValidationError):
        schema.validate({**orjson.loads(lines[0]), "surprise": 1})


def test_kills_at_random_moments_cost_at_most_the_checkpoint_interval(small_job: Job, uninterrupted: Traces) -> None:
    """SIGKILL, again and again, also within a save or a line of the log: the same bytes, no record missing or doubled."""
    for _ in range(4):
        reached = max((r["step"] for r in small_job.records()), default=0)
        if reached > TOTAL - 400:  # or it might be finished before the next one
            break
        process = small_job.start()
        small_job.wait_for_step(process, reached + random.randrange(40, 160))
        process.send_signal(signal.SIGKILL)
        assert small_job.wait(process) == -signal.SIGKILL, small_job.output
        with small_job.run_dir.events_file.open("ab") as log:
            log.write(b'{"time":"2026')  # as a kill within a write leaves it
    assert small_job.run() == 0, small_job.output
    for resumed in small_job.events("resumed"):
        assert resumed["from_step"] > 0
        assert 0 <= resumed["steps_lost"] <= 40 + 7
        assert resumed["previous"] == "was killed"
    assert small_job.traces() == uninterrupted


def test_a_second_ctrl_c_leaves_at_once(small_job: Job, uninterrupted: Traces) -> None:
    """The second Ctrl-C does not wait for the save, and still nothing is lost but the steps since the last checkpoint."""
    process = small_job.start_to_rest(
        250, checkpoint_every_steps=200
    )  # both arrive before the loop can act on the first
    process.send_signal(signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    assert small_job.wait(process) == 130
    assert small_job.run() == 0, small_job.output
    assert small_job.traces() == uninterrupted


def test_two_starts_at_once_give_one_writer(small_job: Job, uninterrupted: Traces) -> None:
    """The second start of a live run is refused by name of the first and changes nothing."""
    first, second = small_job.start(), small_job.start()
    codes = {small_job.wait(first): small_job.output, small_job.wait(second): small_job.output}
    assert sorted(codes) in ([0], [0, 2]), codes
    if 2 in codes:  # else the first had ended before the second looked
        assert "is writing this run" in codes[2]
    assert small_job.traces() == uninterrupted


def test_a_live_run_refuses_a_second_writer_by_name(small_job: Job) -> None:
    """A start beside a long run exits with 2 within seconds and says which process it met."""
    process = small_job.start(max_steps=1_000_000)
    small_job.wait_for_step(process, 50)
    assert small_job.run(max_steps=1_000_000) == 2
    assert f"process {process.pid} on host" in small_job.output
    process.send_signal(signal.SIGTERM)
    assert small_job.wait(process) == 75
    assert {r["segment"] for r in small_job.records()} == {1}


def test_a_finished_run_says_so_and_goes_on_with_a_larger_total(small_job: Job, uninterrupted: Traces) -> None:
    """The same command says finished; with a larger total it ends as if it had been started with that total."""
    assert small_job.run(max_steps=400) == 0
    before = small_job.run_dir.status_file.read_bytes()
    assert small_job.run(max_steps=400) == 0
    assert "finished already" in small_job.output
    assert small_job.run_dir.status_file.read_bytes() == before
    assert small_job.run(max_steps=200) == 2
    assert "has done 400 steps" in small_job.output
    assert small_job.interrupt(signal.SIGTERM, 450) == 75
    assert not small_job.run_dir.final.exists()
    assert small_job.run() == 0
    assert small_job.events("resumed")[0]["changed"] == {"max_steps": [400, TOTAL]}
    assert small_job.traces() == uninterrupted


def test_a_flipped_bit_in_the_newest_checkpoint_costs_one_interval(small_job: Job, uninterrupted: Traces) -> None:
    """The damage is found, told, kept aside and survived; `verify` finds it too."""
    small_job.interrupt(signal.SIGTERM, 300)
    newest = small_job.run_dir.checkpoint_file(small_job.status()["step"])
    content = bytearray(newest.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    newest.write_bytes(content)
    assert small_job.run("verify", str(small_job.run_dir.path)) == 1
    assert f"DAMAGE  checkpoints/{newest.name}" in small_job.output
    assert small_job.run() == 0, small_job.output
    (warning,) = small_job.events("warning")
    assert warning["reason"] == "bad_checkpoint"
    assert newest.with_name(newest.name + ".bad").read_bytes() == content
    assert small_job.events("resumed")[0]["steps_lost"] > 0
    assert small_job.traces() == uninterrupted


@pytest.mark.waits(31)
def test_no_readable_checkpoint_is_never_a_silent_fresh_start(small_job: Job) -> None:
    """Where there has been a checkpoint and none is left, the run ends with exit code 3 and a verdict, every time."""
    small_job.interrupt(signal.SIGTERM, 100)
    shutil.rmtree(small_job.run_dir.checkpoints)
    assert small_job.run() == 3
    assert "waiting up to 30 s for it" in small_job.output
    assert "though there has been one" in small_job.output
    assert (small_job.status()["state"], small_job.status()["reason"]) == ("failed", "no_checkpoint")
    assert small_job.events("started")[-1]["segment"] == 1


def test_mistakes_are_named_all_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    """Two mistakes in two places: exit code 2, both told with the nearest name, no file."""
    job = Job(tmp_path / "runs", {"AAE_BATCHSIZE": "10", "AAE_LATENT_DIM": "0"})
    assert job.run("--sed", "3") == 2
    for word in ("AAE_BATCH_SIZE?", "AAE_LATENT_DIM=0", "--seed?", "3 mistakes", "nothing was written"):
        assert word in job.output
    assert list(tmp_path.iterdir()) == []


def test_awkward_paths_work(tmp_path: Path) -> None:
    """A folder with spaces, quotes, dollars, a leading dash and non-ASCII letters holds runs like any other."""
    folder = tmp_path / "-dash, space, quote'\"$HOME`x` üñï;b&c|d"
    folder.mkdir()
    job = Job(folder, small_settings(max_steps=20))
    assert job.run() == 0, job.output
    picture = folder / "random.png"
    assert job.run("sample", str(job.run_dir.path), "--random", "10", f"--out={picture}") == 0, job.output
    with Image.open(picture) as image:
        assert image.size == (4 * 28, 4 * 28)
    assert job.run("verify", str(job.run_dir.path)) == 0, job.output


def test_garbage_is_looked_for_again_once_a_command_is_loaded() -> None:
    """Not while it is, which would take longer; nor is it switched on where it was off."""
    assert gc.isenabled()
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    with loading(), loading():
        pass
    assert gc.isenabled()


def test_an_unwritable_runs_dir_is_refused_in_one_message(tmp_path: Path) -> None:
    """What cannot be written is told with its path and what to do; no traceback."""
    if os.geteuid() == 0:
        (tmp_path / "runs").write_text("a file where the folder should be")
    else:
        (tmp_path / "runs").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    job = Job(tmp_path / "runs", small_settings())
    assert job.run() == 2
    assert "set AAE_RUNS_DIR" in job.output
    assert "Traceback" not in job.output


def test_a_missing_data_set_is_told_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    """Nothing is downloaded while training; the message gives the command that does."""
    job = Job(tmp_path / "runs", small_settings(dataset="mnist", data_dir=tmp_path / "data"))
    assert job.run() == 2
    assert "aae-job fetch --dataset mnist" in job.output
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_trains_beside_a_cluster_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sbatch could be typed; not inside a job, nor without a cluster."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not train.is_beside_cluster()
    (tmp_path / "sbatch").touch(mode=0o755)
    assert train.is_beside_cluster()
    for name, value in (("SLURM_JOB_ID", "5"), ("SUBMITIT_EXECUTOR", "local")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not train.is_beside_cluster()


def test_sample_repeats_the_final_lattice(small_job: Job, tmp_path: Path) -> None:
    """`sample` draws the very picture that the run drew, from the weights alone, and from a checkpoint before the end."""
    small_job.interrupt(signal.SIGTERM, 120)
    out = tmp_path / "sample.png"
    assert small_job.run("sample", "small", "--out", str(out)) == 0, small_job.output
    assert f"step {small_job.status()['step']}" in small_job.output
    assert small_job.run() == 0
    assert small_job.run("sample", "small", "--out", str(out)) == 0, small_job.output
    assert out.read_bytes() == small_job.run_dir.final_lattice.read_bytes()


def test_final_holds_what_sample_and_encode_give(small_job: Job, tmp_path: Path) -> None:
    """Samples and held-out codes to the byte, with averaged weights too; `encode` works before the end; `verify` knows both."""
    codes, samples = tmp_path / "codes.npz", tmp_path / "samples.png"
    small_job.environment |= {"SLURM_CPUS_PER_TASK": "1", "AAE_EMA_DECAY": "0.9"}
    small_job.interrupt(signal.SIGTERM, 120)
    assert small_job.run("encode", "small", "--out", str(codes)) == 0, small_job.output
    assert f"12,000 codes of step {small_job.status()['step']}" in small_job.output
    assert small_job.run() == 0
    assert small_job.run("encode", "small", "--out", str(codes)) == 0, small_job.output
    assert small_job.run("sample", "small", "--random", "100", "--out", str(samples)) == 0, small_job.output
    assert samples.read_bytes() == small_job.run_dir.final_samples.read_bytes()
    with np.load(codes) as found, np.load(small_job.run_dir.final_codes) as final:
        assert sorted(final) == ["codes", "indices", "labels"]
        for name in final:
            assert np.array_equal(final[name], found[name][found["split"] == "held-out"])
    small_job.run_dir.final_codes.write_bytes(b"PK")
    assert small_job.run("verify", "small") == 1
    assert "final/codes.npz: not the SHA-256" in small_job.output


def test_a_diverging_run_ends_with_a_verdict(tmp_path: Path) -> None:
    """A loss that is not a finite number ends the run with exit code 3; what is broken is never saved."""
    job = Job(tmp_path, small_settings(encoder_lr="1e30", decoder_lr="1e30", max_steps=100))
    assert job.run() == 3, job.output
    assert job.status()["reason"] == "nonfinite_loss"
    assert job.events("failed")[0]["exit_code"] == 3
    assert all(orjson.loads(line) for line in job.run_dir.events_file.read_bytes().splitlines())
