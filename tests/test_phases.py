"""The product's training step against the lecture's, on the CPU, on the meta device and where there is a GPU."""

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from aae.lecture import LectureOptimizers, lecture_step, train_as_the_lecture
from aae.networks import AdversarialAutoencoder
from job.config.settings import Settings
from job.data.batches import Batches
from job.data.images import load_images
from job.training.phases import Phases

CPU = torch.device("cpu")


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


def test_a_whole_step_runs_on_the_meta_device() -> None:
    """No tensor of another device, no `.item()`, no branch on a value: each would raise on a device without values."""
    meta = torch.device("meta")
    settings = Settings(hidden_dim=16)
    phases = Phases(AdversarialAutoencoder(2, 16).to(meta), settings, meta)
    batches = Batches(torch.zeros(1000, 784, dtype=torch.uint8), 100, 0, meta)
    window = torch.zeros(6, dtype=torch.float64, device=meta)
    for step in range(1, 12):  # over the border of an epoch
        window += phases.step(batches.at(step))
    assert window.device.type == "meta"


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use; none here")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_recorded_step_gives_the_same_bytes(precision: str, tmp_path: Path) -> None:
    """With AAE_CUDA_GRAPH=true a run on a GPU leaves what it leaves without, also when it is stopped and resumed."""
    import signal

    from jobs import Job, small_settings

    plain = Job(tmp_path / "plain", small_settings(device="cuda", precision=precision))
    assert plain.run() == 0, plain.output
    recorded = Job(tmp_path / "recorded", small_settings(device="cuda", precision=precision, cuda_graph="true"))
    assert recorded.interrupt(signal.SIGTERM, 300) == 75
    assert recorded.run() == 0, recorded.output
    assert recorded.events("warning") == []
    assert recorded.traces() == plain.traces()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use; none here")
def test_a_step_on_a_gpu_waits_for_nothing() -> None:
    """Steps between two log records make no synchronising call; torch raises at one in this mode."""
    cuda = torch.device("cuda")
    settings = Settings()
    phases = Phases(AdversarialAutoencoder(2, 64).to(cuda), settings, cuda)
    batches = Batches(load_images(settings.dataset, settings.data_dir, train=True).pixels, 100, 0, cuda)
    phases.step(batches.at(1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2, batches.steps_per_epoch + 20):  # over the border of an epoch
            phases.step(batches.at(step))
    finally:
        torch.cuda.set_sync_debug_mode("default")
