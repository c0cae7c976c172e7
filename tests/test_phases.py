"""The product's training step against the lecture's, on the CPU, on a fake GPU and where there is a real one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, TensorDataset

from aae.lecture import LectureOptimizers, lecture_step, train_as_the_lecture
from aae.networks import AdversarialAutoencoder
from job.config.recipes import RECIPES, Recipe
from job.config.settings import Settings
from job.data.batches import Batches
from job.data.images import Images, load_images
from job.log.writer import EventLog
from job.proofs.gpu import graph_gives_the_same_bytes, train_without_waiting
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.training.loss_window import LossWindow
from job.training.phases import Phases, new_model
from job.training.trainer import Trainer

CPU = torch.device("cpu")
# The form with a rate in memory changes its arguments and returns nothing; torch has told this of the one with a number only.
META = torch.library.Library("aten", "IMPL", "Meta")
META.impl("_fused_adam_.tensor_lr", lambda *_, **__: None)


def _model(dtype: torch.dtype, dropout: bool) -> AdversarialAutoencoder:
    torch.manual_seed(5)
    model = AdversarialAutoencoder(2, 64).to(dtype)
    if not dropout:
        for network in (model.encoder, model.decoder, model.discriminator):
            network.dropout = 0.0
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 5e-5)])
def test_the_step_equals_the_lectures_over_100_steps(dtype: torch.dtype, tolerance: float) -> None:
    """Without dropout, losses and weights agree to rounding: in double precision too, so no difference hides in it."""
    settings = Settings(batch_size=50)
    batches = Batches(load_images(settings.dataset, settings.data_dir, train=True).pixels, 50, 0, CPU)
    ours, theirs = _model(dtype, dropout=False), _model(dtype, dropout=False)
    phases, optimizers = Phases(ours, settings, CPU), LectureOptimizers(theirs)
    for step in range(1, 101):
        images = batches.at(step).to(dtype)
        torch.manual_seed(step)  # both draw the same samples of the prior
        losses = phases.step(images)[:3]
        torch.manual_seed(step)
        reference = lecture_step(theirs, optimizers, images)
        expected = torch.tensor([reference.reconstruction, reference.discriminator, reference.generator], dtype=dtype)
        torch.testing.assert_close(losses, expected, rtol=tolerance, atol=tolerance)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance), f"{name} differs by {(a - b).abs().max()}"


def test_the_lectures_own_loop_trains() -> None:
    """`train_as_the_lecture` runs on a data set of images and labels and lowers the reconstruction loss."""
    torch.manual_seed(0)
    images = load_images("digits", Path(), train=True).pixels[:500].view(-1, 1, 28, 28) / 255
    dataset = cast("Dataset[tuple[Tensor, int]]", TensorDataset(images, torch.zeros(500, dtype=torch.int64)))
    losses = train_as_the_lecture(AdversarialAutoencoder(2, 400), dataset, batch_size=50)
    values = [next(losses).reconstruction for _ in range(60)]
    assert values[-1] < 0.7 * values[0]


def test_each_phase_updates_its_own_networks_only() -> None:
    """Reconstruction moves P and Q, discrimination D, fooling Q: with the other rates at (almost) zero, only those move."""
    still = 1e-30
    rates = {"encoder_lr": still, "decoder_lr": still, "generator_lr": still, "discriminator_lr": still}
    images = torch.rand(20, 784)
    for moving, network in [
        ("encoder_lr", "encoder"),
        ("decoder_lr", "decoder"),
        ("generator_lr", "encoder"),
        ("discriminator_lr", "discriminator"),
    ]:
        model = _model(torch.float32, dropout=True)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        Phases(model, Settings(**{**rates, moving: 1e-3}), CPU).step(images)
        moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {network}


def _launched(function: Callable[[], object]) -> Counter[str]:
    """The operators that a function dispatches, each a kernel launch on a GPU: views and bare memory are none."""
    free = {
        "view",
        "t",
        "transpose",
        "select",
        "slice",
        "as_strided",
        "detach",
        "unsqueeze",
        "expand",
        "split",
        "unbind",
    }
    free |= {"empty", "new_empty", "empty_like", "permute", "alias", "_unsafe_view", "squeeze"}

    found: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._schema.name.removeprefix("aten::")
            found.update({name} - free)
            return func(*args, **(kwargs or {}))

    with Counting():  # type: ignore[no-untyped-call]  # torch types a part of itself
        function()
    return found


@pytest.mark.parametrize(
    ("recipe", "precision", "most"),
    [("lecture", "float32", 100), ("lecture", "bfloat16", 120), ("tuned", "float32", 111), ("paper", "float32", 128)],
)
def test_a_step_launches_few_kernels(recipe: Recipe, precision: str, most: int) -> None:
    """From the batch to the window of readings; what they are is printed."""
    settings = Settings(**{**RECIPES[recipe], "hidden_dim": 16, "precision": precision})
    images = torch.zeros(1000, 784, dtype=torch.uint8)
    phases, batches = Phases(new_model(settings), settings, CPU), Batches(images, settings.batch_size, 0, CPU)
    window = LossWindow(CPU)
    phases.step(batches.at(1))
    found = _launched(lambda: window.add(phases.step(batches.at(2))))
    print(f"{recipe}, {precision}: {found.total()} launches: {dict(found.most_common())}")
    assert 60 < found.total() <= most


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by copy.deepcopy
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_asks_the_gpu_for_no_value(
    recipe: Recipe, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole loop on a fake GPU, whose tensors have no values and take none of another device.

    Steps over the border of an epoch, the averages, the window of readings, the snapshot for an evaluation and the lattice
    up to its copy to the host.
    """
    settings = Settings(
        **{**RECIPES[recipe], "lattice_mode": "unit", "hidden_dim": 16, "batch_size": 100, "precision": precision},
        ema_decay=0.9,
        max_steps=25,
        evaluate_every_steps=10,
        lattice_every_steps=20,
        log_every_steps=10**6,
        cuda_graph=False,
    )
    drawn: list[torch.Tensor] = []
    measured: list[int] = []

    class Beside:
        def __init__(self, _: torch.device) -> None: ...

        def submit(self, _: object, step: int) -> None:
            measured.append(step)

        def close(self) -> None: ...

    def moved(model: AdversarialAutoencoder, to: torch.device | torch.dtype) -> AdversarialAutoencoder:
        for layer in model.modules():  # torch's own way would swap fake tensors, which cannot be
            for name, parameter in layer._parameters.items():
                assert parameter is not None
                layer._parameters[name] = torch.nn.Parameter(parameter.detach().to(to))
        return model

    def picture(pixels: torch.Tensor, _: object) -> bytes:
        drawn.append(pixels)
        return b""

    monkeypatch.setattr("job.evaluation.monitor._Beside", Beside)
    monkeypatch.setattr("job.results.pictures.png", picture)
    monkeypatch.setattr(AdversarialAutoencoder, "to", moved)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda order: order)  # which needs a driver
    run_dir = RunDir(tmp_path)
    cuda = torch.device("cuda", 0)
    with FakeTensorMode():
        made = Images(torch.zeros(1000, 784, dtype=torch.uint8), torch.zeros(1000, dtype=torch.int64))
        monkeypatch.setattr("job.training.trainer.load_images", lambda *_, **__: made)

        outbox = Outbox(run_dir)
        trainer = Trainer(settings, cuda, run_dir, outbox, EventLog(run_dir, 1, outbox))
        while trainer.step < settings.total_steps:
            trainer.advance()
        assert trainer._window._sums.device.type == "cuda"
    assert measured == [10, 20]
    assert [tuple(pixels.shape) for pixels in drawn] == [(280, 280)]
    with pytest.raises(Exception, match="_local_scalar_dense"), FakeTensorMode():
        torch.zeros((), device=cuda).item()  # what would have been found


def test_bfloat16_trains_close_to_float32() -> None:
    """bfloat16 rounds the matrix products only: after 30 steps the losses agree to its precision."""
    readings = []
    for precision in ("float32", "bfloat16"):
        model = _model(torch.float32, dropout=False)
        settings = Settings(precision=precision, batch_size=50)
        phases, batches = (
            Phases(model, settings, CPU),
            Batches(load_images(settings.dataset, settings.data_dir, train=True).pixels, 50, 0, CPU),
        )
        torch.manual_seed(0)
        readings.append(torch.stack([phases.step(batches.at(step)) for step in range(1, 31)])[-1])
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not torch.equal(*readings)
    torch.testing.assert_close(readings[0][:3], readings[1][:3], rtol=0.02, atol=0.02)


def test_batches_are_a_function_of_seed_and_step() -> None:
    """Asked in any order the batch of a step is the same; an epoch shows every image once; seeds and epochs differ."""
    images = torch.arange(50).repeat(784, 1).T.to(torch.uint8)

    def batch(step: int, seed: int = 0) -> list[int]:
        return (Batches(images, 10, seed, CPU).at(step)[:, 0] * 255).round().int().tolist()

    in_order = Batches(images, 10, 0, CPU)
    for step in range(1, 16):
        assert (in_order.at(step)[:, 0] * 255).round().int().tolist() == batch(step)
    first_epoch = sorted(i for step in range(1, 6) for i in batch(step))
    assert first_epoch == list(range(50))
    assert batch(1) != batch(6)
    assert batch(1) != batch(1, seed=1)
    assert in_order.epoch(5) == 1
    assert in_order.epoch(6) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use; none here")
def test_training_on_a_gpu_resumes_exactly(tmp_path: Path) -> None:
    """The same command on a GPU: stopped and resumed, the same bytes as uninterrupted."""
    import signal

    from jobs import Job, small_settings

    whole = Job(tmp_path / "whole", small_settings(device="cuda"))
    assert whole.run() == 0, whole.output
    cut = Job(tmp_path / "cut", small_settings(device="cuda"))
    assert cut.interrupt(signal.SIGTERM, 300) == 75
    assert cut.run() == 0, cut.output
    assert cut.traces() == whole.traces()


LEVERS: dict[str, dict[str, Any]] = {
    "lecture": {},
    "cosine, R1, averages": {**RECIPES["tuned"], "batch_size": 100, "ema_decay": 0.99},
    "noise": {**RECIPES["paper"], "batch_size": 100, "autoencoder_dropout": 0.25},
}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use; none here")


@needs_gpu
@pytest.mark.parametrize("levers", LEVERS)
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_recorded_step_gives_the_same_bytes(levers: str, precision: str) -> None:
    """At the default widths, with rates that fall, R1, noise and averages; random state and readings too."""
    assert graph_gives_the_same_bytes(Settings(**{**LEVERS[levers], "precision": precision}))


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_with_a_graph_resumes_to_the_bytes_of_one_without(precision: str, tmp_path: Path) -> None:
    """Stopped, resumed from a checkpoint that a graph has made, and compared with steps one by one."""
    import signal

    from jobs import Job, small_settings

    plain = Job(tmp_path / "plain", small_settings(device="cuda", precision=precision, cuda_graph="false"))
    assert plain.run() == 0, plain.output
    recorded = Job(tmp_path / "recorded", small_settings(device="cuda", precision=precision))
    assert recorded.interrupt(signal.SIGTERM, 300) == 75
    assert recorded.run() == 0, recorded.output
    assert recorded.events("warning") == []
    assert recorded.traces() == plain.traces()


@needs_gpu
def test_a_recording_that_fails_on_a_gpu_costs_a_new_start(tmp_path: Path) -> None:
    """Forced by a step that waits for the GPU while it is recorded; what follows trains without graphs, to the same bytes."""
    from jobs import Job, small_settings

    plain = Job(tmp_path / "plain", small_settings(device="cuda", cuda_graph="false"))
    assert plain.run() == 0, plain.output
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "def when_loaded():\n"
        "    while not hasattr(sys.modules.get('job.training.phases'), 'Phases'):\n"
        "        time.sleep(0.001)\n"
        "    import torch\n"
        "    phases = sys.modules['job.training.phases'].Phases\n"
        "    step = phases.step\n"
        "    def waiting(self, images):\n"
        "        if torch.cuda.is_current_stream_capturing():\n"
        "            images.sum().item()\n"
        "        return step(self, images)\n"
        "    phases.step = waiting\n"
        "threading.Thread(target=when_loaded, daemon=True).start()\n"
    )
    job = Job(tmp_path / "refused", small_settings(device="cuda"))
    job.cold = True
    job.load_first(tmp_path)
    assert job.run() == 0, job.output
    assert [record["reason"] for record in job.events("warning")] == ["no_cuda_graph"]
    assert job.traces() == plain.traces()


@needs_gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("levers", LEVERS)
def test_the_loop_on_a_gpu_waits_for_nothing(levers: str, cuda_graph: bool, tmp_path: Path) -> None:
    """Between two records: steps, the border of an epoch, the averages, the snapshot that an evaluation waits for."""
    train_without_waiting(Settings(**{**LEVERS[levers], "cuda_graph": cuda_graph, "batch_size": 500}), tmp_path)
