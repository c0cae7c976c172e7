"""Evaluations: in runs beside training, on demand by `aae-job evaluate`, and the end that saturation makes."""

import contextlib
import errno
import json
import random
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from jobs import TOTAL, Job, small_settings
from PIL import Image

from aae.networks import AdversarialAutoencoder
from job.checkpoints.checkpoint import read_checkpoint
from job.config.settings import Settings
from job.data.images import held_out_sample, load_images
from job.errors import HopelessError
from job.evaluation.measures import evaluate
from job.log.events import EVALUATION_KEYS
from job.log.reader import merged_records
from job.log.writer import EventLog
from job.proofs.exactness import Traces
from job.results.curves import CurveDrawing, draw_curves
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox

EVERY = 100

# So lenient that a run counts as saturated after its fifth window.
LENIENT: dict[str, Any] = {
    "evaluate_every_steps": EVERY,
    "stop_when_saturated": "true",
    "saturation_windows": 4,
    "saturation_confirmations": 2,
    "saturation_slope_percent": 1000,
    "saturation_trend_p": 0,
    "saturation_loss_band": 100,
    "saturation_output_band": 0.4999,
    "saturation_energy": 1000,
    "saturation_c2st": 1,
    "saturation_winning": 1,
    "saturation_collapse": 1e-12,
}
ENDS_AT = 5 * EVERY + EVERY // 2


def _evaluations(job: Job) -> list[dict[str, Any]]:
    """What the log says that counts, without times and segments."""
    records = merged_records(job.run_dir.events_file, "evaluation")
    return [{k: v for k, v in r.items() if k in EVALUATION_KEYS} for r in records]


def test_evaluations_are_due_written_and_without_effect_on_training(small_job: Job, uninterrupted: Traces) -> None:
    """One a window, in the log alone; weights, lattices and losses as without any."""
    assert small_job.run(evaluate_every_steps=EVERY) == 0, small_job.output
    found = _evaluations(small_job)
    assert [one["step"] for one in found] == list(range(EVERY, TOTAL + 1, EVERY))
    for one in found:
        assert tuple(one) == EVALUATION_KEYS
        assert one["num_images"] == 1000
        assert one["parzen_log_likelihood"] is None
        assert len(one["code_cov_eigenvalues"]) == len(one["code_mean"]) == 2
    assert not small_job.run_dir.evaluations.exists()
    losses = [one["reconstruction_bce"] for one in found]
    assert losses[-1] < losses[0]
    assert small_job.traces() == uninterrupted
    status = small_job.status()
    assert status["saturation"] in status["verdict"] or "not saturated yet" in status["verdict"]


@pytest.mark.process
def test_a_run_that_is_to_stop_when_saturated_stops_at_the_same_step_however_it_was_interrupted(tmp_path: Path) -> None:
    """Half a window after the one that makes the verdict, with whole results, and the same bytes after kills."""
    # Without a checkpoint on the way, which would bring the verdict earlier than it is due.
    whole = Job(tmp_path / "whole", small_settings(**{**LENIENT, "checkpoint_every_steps": 10_000}))
    assert whole.run() == 0, whole.output
    status = whole.status()
    assert (status["state"], status["reason"], status["saturation"]) == ("finished", "saturated", "saturated")
    assert (status["step"], status["total_steps"], status["exit_code"]) == (ENDS_AT, TOTAL, 0)
    assert f"ended at step {ENDS_AT} of {TOTAL}, saturated: reconstruction flat" in status["verdict"]
    (change,) = whole.events("saturation")
    assert (change["step"], change["previous"], change["verdict"]) == (5 * EVERY, "not_yet", "saturated")
    assert whole.events("finished")[0]["step"] == ENDS_AT
    assert f"finished: {ENDS_AT} steps" in whole.output
    assert sorted(p.name for p in whole.run_dir.final.iterdir()) == [
        *("codes.npz", "curves.png", "lattice.png", "samples.png", "summary.json", "weights.safetensors")
    ]
    assert whole.run() == 0
    assert "finished already" in whole.output

    cut = Job(tmp_path / "cut", small_settings(**LENIENT))
    # The last one within the half window in which the verdict is known and the end has not come.
    for at in (random.randrange(20, 4 * EVERY), 5 * EVERY + 2):
        cut.interrupt(random.choice([signal.SIGKILL, signal.SIGTERM]), at)
    assert cut.run() == 0, cut.output
    assert cut.status()["step"] == ENDS_AT
    assert cut.traces() == whole.traces()
    assert [r["step"] for r in merged_records(cut.run_dir.events_file, "saturation")] == [5 * EVERY]


def test_switching_the_stop_off_lets_a_saturated_run_go_on_to_its_total(small_job: Job, uninterrupted: Traces) -> None:
    """It ends as if it had never been asked to stop; `final/` comes back whole."""
    for name, value in LENIENT.items():
        small_job.environment[f"AAE_{name.upper()}"] = str(value)
    assert small_job.run() == 0, small_job.output
    assert small_job.status()["step"] == ENDS_AT
    assert "--stop-when-saturated false" in small_job.output
    assert small_job.run("--stop-when-saturated", "false") == 0, small_job.output
    assert (small_job.status()["step"], small_job.status()["reason"]) == (TOTAL, "finished")
    assert small_job.events("resumed")[0]["changed"] == {"stop_when_saturated": [True, False]}
    assert small_job.events("resumed")[0]["previous"] == "saturated"
    assert small_job.traces() == uninterrupted


@pytest.mark.process
def test_evaluations_averages_and_a_falling_rate_survive_kills(tmp_path: Path) -> None:
    """A schedule over the run, averaged weights, evaluations: killed and resumed, the same bytes; its length cannot change.

    The merged log of the killed run has each evaluation once, with the same figures; none is missing behind a checkpoint.
    """
    training = {"lr_schedule": "cosine", "ema_decay": 0.99, "autoencoder_dropout": 0.1, "encoder_lr": 1e-3}
    levers = small_settings(**{"max_steps": 900, "evaluate_every_steps": EVERY, **training})
    whole, cut = Job(tmp_path / "whole", levers), Job(tmp_path / "cut", levers)
    whole.interrupt(signal.SIGTERM, 881)  # a finished run keeps its newest checkpoint alone
    kept_aside = [read_checkpoint(whole.run_dir.checkpoint_file(step)) for step in (840, 880)]
    assert whole.run() == 0, whole.output
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        reached = max((r["step"] for r in cut.records()), default=0)
        cut.interrupt(number, reached + random.randrange(60, 200))
    assert cut.run(max_steps=1000) == 2
    assert "AAE_MAX_STEPS is 900 in settings.json, now 1000" in cut.output
    assert "the learning rates fall over the whole run" in cut.output
    assert cut.run() == 0, cut.output
    assert cut.traces() == whole.traces()
    assert "goes on from here" not in cut.output
    assert _evaluations(cut) == _evaluations(whole)
    written: set[int] = set()
    for record in cut.records():
        if record["event"] == "evaluation":
            written.add(record["step"])
        if record["event"] == "checkpoint":
            assert set(range(EVERY, record["step"] + 1, EVERY)) <= written
    before, middle, last = [*kept_aside, read_checkpoint(whole.run_dir.checkpoint_file(900))]
    kept = safetensors.torch.load_file(whole.run_dir.final_weights)
    name = "encoder.hidden1.weight"
    assert torch.equal(kept[name], last["average"][name])
    assert not torch.equal(kept[name], last["model"][name])
    assert torch.equal(kept["discriminator.hidden1.weight"], last["model"]["discriminator.hidden1.weight"])
    moved = [float((b["model"][name] - a["model"][name]).norm()) for a, b in pairwise((before, middle, last))]
    assert moved[1] / 20 < 0.4 * moved[0] / 40, "the rate does not fall"


def test_evaluate_measures_everything_and_writes_it_down(small_job: Job) -> None:
    """Of an unfinished run its newest checkpoint, with labels and samples; the Parzen estimate only when asked for."""
    small_job.interrupt(signal.SIGTERM, 300)
    step = small_job.status()["step"]
    small_job.environment["SLURM_CPUS_PER_TASK"] = "1"  # all of them would wait for each other beside other tests
    assert small_job.run("evaluate", "small", "--json") == 0, small_job.output
    found = json.loads(small_job.output)
    path = small_job.run_dir.evaluation_file(step)
    assert json.loads(path.read_bytes()) == found
    assert tuple(found) == EVALUATION_KEYS
    assert (found["step"], found["num_images"]) == (step, 2000)
    assert 0.1 < found["knn10_accuracy"] <= 1
    assert 0.1 < found["linear_probe_accuracy"] <= 1
    assert len(found["class_share"]) == 10
    assert sum(found["class_share"]) == pytest.approx(1)
    assert found["parzen_log_likelihood"] is None
    assert small_job.run("evaluate", "small", "--parzen") == 0, small_job.output
    for words in ("BCE 0.", "energy distance", "10 nearest neighbours", "Parzen", str(path)):
        assert words in small_job.output
    assert json.loads(path.read_bytes())["parzen_stderr"] > 0


@pytest.mark.process
def test_evaluate_tells_what_is_missing(tmp_path: Path) -> None:
    """No run, no weights, no data: exit code 2 and one message."""
    job = Job(tmp_path / "runs", small_settings())
    assert job.run("evaluate", "nothing") == 2
    assert "no run 'nothing'" in job.output
    assert job.run(max_steps=20) == 0, job.output
    (job.run_dir.final / "weights.safetensors").unlink()
    for path in job.run_dir.checkpoints.iterdir():
        path.unlink()
    assert job.run("evaluate", "small") == 2
    assert "no weights yet" in job.output


def _model(scale: float) -> AdversarialAutoencoder:
    torch.manual_seed(0)
    model = AdversarialAutoencoder(2, 8).eval()
    with torch.no_grad():
        model.encoder.output.weight.mul_(scale)
    return model


def test_an_evaluation_takes_nothing_from_the_random_state_and_repeats_itself() -> None:
    """The same weights and step: the same figures; another step: other samples of the prior."""
    images = held_out_sample(load_images("digits", Path(), train=False), 200)
    model = _model(1)
    state = torch.get_rng_state()
    first = evaluate(model, images, Settings(), 7, 0.01)
    assert evaluate(model, images, Settings(), 7, 0.01) == first
    assert evaluate(model, images, Settings(), 8, 0.01)[1].d_prior != first[1].d_prior
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("scale", [float("nan"), 1e30])
def test_codes_that_are_no_numbers_end_the_run_with_a_verdict(scale: float) -> None:
    """Not with a traceback out of a library that does not like them."""
    images = held_out_sample(load_images("digits", Path(), train=False), 50)
    with pytest.raises(HopelessError, match="not finite numbers at step 3"):
        evaluate(_model(scale), images, Settings(), 3, 0.01)


def test_the_held_out_images_are_no_training_images() -> None:
    """2,000 digits with labels, none of them among the 10,000 to train on; a sample of them is the same every time."""
    train, held_out = (load_images("digits", Path(), train=part) for part in (True, False))
    assert (len(train.pixels), len(held_out.pixels)) == (10_000, 2_000)
    seen = {row.numpy().tobytes() for row in train.pixels}
    assert sum(row.numpy().tobytes() in seen for row in held_out.pixels) == 0
    assert set(held_out.labels.tolist()) == set(range(10))
    assert torch.equal(held_out_sample(held_out, 100), held_out_sample(held_out, 100))


def test_curves_are_drawn_of_any_log(tmp_path: Path, small_job: Job) -> None:
    """Of a log with nothing in it yet, and of an interrupted run that was evaluated: a picture with marks of colour."""
    empty = RunDir(tmp_path / "empty")
    empty.path.mkdir()
    EventLog(empty, 1, Outbox(empty))
    assert draw_curves(empty).startswith(b"\x89PNG")
    small_job.draw()
    small_job.environment |= {f"AAE_{n.upper()}": str(v) for n, v in LENIENT.items()}
    small_job.interrupt(signal.SIGTERM, 100)
    assert small_job.run() == 0, small_job.output
    final = small_job.run_dir.final_curves.read_bytes()
    assert small_job.run_dir.curves.read_bytes() == final
    with Image.open(small_job.run_dir.final_curves) as picture:
        assert picture.size == (900, 1200)
        red, green, blue = (channel.astype(int) for channel in np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    assert (blue > red + 80).any(), "no line"
    assert (green > np.maximum(red, blue) + 40).any(), "no mark of the verdict"


@pytest.mark.process
def test_curves_are_kept_fresh_by_a_process_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun when it is time, taken over when it is done, and not begun again at once."""
    monkeypatch.setattr("job.results.curves.FIRST_S", 0.0)
    # Not at the lowest priority, at which it would give way to whatever else is tested here, for minutes.
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@" at-last\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    run_dir = RunDir(tmp_path / "r")
    run_dir.path.mkdir()
    with contextlib.closing(CurveDrawing(run_dir, Outbox(run_dir))) as drawing:
        drawing.refresh()
        process = drawing._process
        assert process is not None
        assert process.wait(240) == 0
        drawing.refresh()
        assert run_dir.curves.read_bytes().startswith(b"\x89PNG")
        assert drawing._process is None


def test_curves_that_cannot_be_begun_do_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for a temporary file: training goes on, and the next attempt waits."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("job.results.curves.FIRST_S", 0.0)
    run_dir = RunDir(tmp_path / "r")
    run_dir.path.mkdir()
    drawing = CurveDrawing(run_dir, Outbox(run_dir))
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    drawing.refresh()
    assert drawing._process is None
    drawing.close()


def test_verdict_changes_alternate(small_job: Job) -> None:
    """Each `saturation` record starts from the verdict of the one before."""
    assert small_job.run(evaluate_every_steps=30, saturation_confirmations=1, encoder_lr=1e-3, max_steps=450) == 0
    changes = small_job.events("saturation")
    assert changes
    assert changes[0]["previous"] == "not_yet"
    for before, after in pairwise(changes):
        assert after["previous"] == before["verdict"] != after["verdict"]
