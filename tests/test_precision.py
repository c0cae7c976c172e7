"""Precision and CUDA graphs where there is no GPU: refused or told, never silently something else."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from jobs import Job, small_settings
from torch import Tensor

from aae.networks import AdversarialAutoencoder
from job.config.settings import Settings
from job.training.graph import GraphedStep
from job.training.phases import Phases
from job.training.precision import Working

without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="tells what happens without a GPU; there is one here"
)


@pytest.mark.process
@without_gpu
def test_tf32_is_refused_without_a_gpu(tmp_path: Path) -> None:
    """As a mistake in the settings where they say cpu, else once it is clear that there is no GPU."""
    job = Job(tmp_path, small_settings(precision="tf32"))
    assert job.run() == 2
    assert "AAE_PRECISION=tf32: only a GPU has it, and AAE_DEVICE=cpu" in job.output
    assert not job.run_dir.path.exists()
    assert job.run(device="auto") == 3
    assert "AAE_PRECISION=tf32: only a GPU has it, and this process trains on the cpu" in job.output
    assert (job.status()["state"], job.status()["reason"]) == ("failed", "precision")


@pytest.mark.process
@without_gpu
def test_a_graph_without_a_gpu_is_warned_of_and_changes_no_byte(tmp_path: Path) -> None:
    """AAE_CUDA_GRAPH=true on a CPU trains on, with one `warning`, to the same bytes; it is free on resume."""
    plain, graphed = Job(tmp_path / "plain", small_settings()), Job(tmp_path / "graphed", small_settings())
    assert plain.run(max_steps=100) == 0, plain.output
    assert graphed.run(max_steps=50, cuda_graph="true") == 0, graphed.output
    (warning,) = graphed.events("warning")
    assert (warning["reason"], warning["step"]) == ("no_cuda_graph", 0)
    assert graphed.run(max_steps=100) == 0, graphed.output
    assert graphed.traces() == plain.traces()


def test_a_graph_that_cannot_be_recorded_falls_back_once() -> None:
    """The step runs each time all the same, and the reason is told once."""
    told: list[str] = []
    seen: list[int] = []

    def step(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images

    graphed = GraphedStep(step, torch.device("cpu"), told.append)
    for number in range(1, 7):
        assert len(graphed(torch.zeros(number, 1))) == number
    assert seen == [1, 2, 3, 4, 5, 6]
    assert len(told) == 1


@pytest.mark.parametrize("records", [True, False])
def test_every_call_trains_once_on_its_own_images(records: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, recording and replay, on a stand-in for CUDA: recording trains nothing, a failed one is told once."""
    trained: list[float] = []
    told: list[str] = []
    recording = False

    class Graph:
        def replay(self) -> None:
            step(static[-1])

    static: list[Tensor] = []

    @contextmanager
    def graph(_: Graph, capture_error_mode: str) -> Iterator[None]:
        nonlocal recording
        recording = True
        try:
            yield
        finally:
            recording = False
        if not records:
            raise RuntimeError("operation not permitted when stream is capturing")

    def step(images: Tensor) -> Tensor:
        if recording:
            static.append(images)
        else:
            trained.append(images.item())
        return images

    class Stream:
        def wait_stream(self, _: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    graphed = GraphedStep(step, torch.device("cuda"), told.append)
    for number in range(8):
        assert graphed(torch.tensor([float(number)])).item() == number
    assert trained == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(static) == 1
    assert len(told) == (0 if records else 1)


@pytest.mark.process
@pytest.mark.skipif(
    torch.ops.mkldnn._is_mkldnn_bf16_supported() or torch.cuda.is_available(),
    reason="this machine has bfloat16 products",
)
def test_emulated_bfloat16_is_warned_of(tmp_path: Path) -> None:
    """A CPU without bfloat16 products trains, with a `warning` that says what it costs."""
    job = Job(tmp_path, small_settings(precision="bfloat16", max_steps=20))
    assert job.run() == 0, job.output
    assert [record["reason"] for record in job.events("warning")] == ["slow_precision"]
    assert "several times slower" in job.output


def test_the_working_copy_follows_the_weights() -> None:
    """After each step, and after a state is loaded, the products read the weights rounded to bfloat16."""

    def assert_rounded(phases: Phases) -> None:
        working: Working = phases._working
        for copied, weight in zip(working.networks.parameters(), phases.model.parameters(), strict=True):
            assert copied.dtype == torch.bfloat16
            assert torch.equal(copied, weight.to(torch.bfloat16))

    settings = Settings(precision="bfloat16", hidden_dim=8, encoder_lr=0.1, decoder_lr=0.1, discriminator_lr=0.1)
    first, second = (Phases(AdversarialAutoencoder(2, 8), settings, torch.device("cpu")) for _ in range(2))
    first.step(torch.rand(10, 784))
    assert_rounded(first)
    second.load_state_dict(first.state_dict())
    assert_rounded(second)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
