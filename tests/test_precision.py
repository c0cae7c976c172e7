"""Precision and CUDA graphs where there is no GPU: refused or told, never silently something else."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import Job, SlurmJob, small_settings
from torch import Tensor

from aae.networks import AdversarialAutoencoder
from job.config.settings import Settings
from job.errors import GraphError
from job.proofs.exactness import Traces
from job.training.device import _times_float32, use_precision
from job.training.graph import GraphedStep, was_done_without
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


class _StandIn:
    """For CUDA where there is none: a recording runs the step once without an effect, a replay runs it with one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, records: bool = True, differs: bool = False) -> None:
        self.recording = False
        self.state = torch.zeros(1)
        self.recorded: list[Tensor] = []

        class Graph:
            def replay(_) -> None:
                self.step(self.recorded[-1])
                self.state += differs

        @contextmanager
        def graph(_: Graph, capture_error_mode: str) -> Iterator[None]:
            self.recording = True
            yield
            self.recording = False
            if not records:
                raise RuntimeError("operation not permitted when stream is capturing")

        class Stream:
            def wait_stream(self, _: object) -> None: ...

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: torch.get_rng_state())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _: torch.set_rng_state(state))

    def step(self, images: Tensor) -> Tensor:
        """Adds its image and a random number to the state."""
        if self.recording:
            self.recorded.append(images)
        else:
            self.state += images + torch.rand(1)
        return images


@pytest.mark.parametrize("differs", [False, True])
def test_every_call_trains_once_on_its_own_images(differs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, recording, the comparison and replay, on a stand-in for CUDA; a graph with other bytes is told and not used."""
    torch.manual_seed(0)
    told: list[str] = []
    cuda = _StandIn(monkeypatch, differs=differs)
    graphed = GraphedStep(cuda.step, [cuda.state], torch.device("cuda"), told.append)
    for number in range(8):
        assert graphed(torch.tensor([float(number)])).item() == number
    found = cuda.state.item()
    torch.manual_seed(0)
    assert found == pytest.approx(sum(number + torch.rand(1).item() for number in range(8)))
    assert len(cuda.recorded) == 1
    assert ["other bytes" in message for message in told] == [True] * differs


@pytest.mark.parametrize(
    ("told", "choice", "without"),
    [
        ({"cuda_graph": False, "hardware": "H100"}, "auto", True),
        ({"cuda_graph": False, "hardware": "H100"}, True, False),
        ({"cuda_graph": False, "hardware": "A100"}, "auto", False),
        ({"cuda_graph": True, "hardware": "H100"}, "auto", False),
        ({"hardware": "H100"}, "auto", False),
    ],
)
def test_a_graph_that_was_given_up_is_not_tried_again_on_the_same_gpu(
    told: dict[str, Any], choice: Any, without: bool
) -> None:
    """Each resume would find out the same, and warn of a change that is none."""
    assert was_done_without(told, choice, "H100") == without


def test_a_graph_that_cannot_be_recorded_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the step with an error of its own, before a number has changed."""
    cuda = _StandIn(monkeypatch, records=False)
    graphed = GraphedStep(cuda.step, [cuda.state], torch.device("cuda"), lambda _: None)
    for _ in range(3):
        graphed(torch.ones(1))
    before = cuda.state.clone()
    with pytest.raises(GraphError, match=r"cannot be recorded as a CUDA graph: operation not permitted"):
        graphed(torch.ones(1))
    assert torch.equal(cuda.state, before)


_AGEING = """
import torch
from job.config.settings import Settings
from job.training.device import prepare_torch
from job.training.phases import Phases, new_model

def num_subnormal(tensor):  # by their bits: compared as numbers they would be zeros
    bits = tensor.view(torch.int32)
    return int(((bits & 0x7F800000 == 0) & (bits & 0x007FFFFF != 0)).sum())

settings = Settings(num_threads=2, hidden_dim=16, batch_size=10, device="cpu")
for prepared in (False, True):
    if prepared:
        prepare_torch(settings)
    print(num_subnormal(torch.full((1_000_000,), 1e-39) * 1.0))
    torch.manual_seed(0)
    phases = Phases(new_model(settings), settings, torch.device("cpu"))
    images = torch.zeros(10, 784)
    images[:, :392] = 1
    phases.step(torch.ones(10, 784))  # the last time that the other pixels are seen
    for _ in range(900):
        phases.step(images)
    print(sum(num_subnormal(tensor) for tensor in phases.changed if tensor.dim()))
"""


@pytest.mark.process
def test_a_step_does_not_age() -> None:
    """Subnormal numbers, which processors compute many times slower, are zero in all threads; none are left in Adam's moments."""
    done = subprocess.run([sys.executable, "-P", "-c", _AGEING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    in_threads, in_moments, *prepared = (int(line) for line in done.stdout.split())
    assert (in_threads, in_moments > 1000) == (1_000_000, True)
    assert prepared == [0, 0]


@without_gpu
@pytest.mark.parametrize("times", [0.9, 1.7])
def test_a_slower_precision_is_told(times: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bfloat16 where a product takes longer in it, as it was measured here; never of float32."""
    now = [0.0]

    def multiply(x: torch.Tensor, _: torch.Tensor) -> None:
        now[0] += times if x.dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "mm", multiply)
    told = use_precision(Settings(precision="bfloat16"), torch.device("cpu"))
    assert (told is not None and "takes 1.7 times as long" in told) == (times > 1.1)
    assert use_precision(Settings(), torch.device("cpu")) is None


def test_how_long_a_product_takes_is_measured() -> None:
    """In both precisions, on this machine."""
    assert 0.01 < _times_float32(Settings(hidden_dim=64)) < 1000


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


# Where there is no GPU, a step that raises what a recording raises; the process that began anew is left alone.
NO_RECORDING = """
import os, sys, threading, time

def when_loaded():
    while not hasattr(sys.modules.get('job.training.trainer'), 'Trainer'):
        time.sleep(0.001)
    from job.errors import GraphError
    trainer = sys.modules['job.training.trainer'].Trainer
    advance = trainer.advance

    def refuse(self):
        advance(self)
        if self.step == 4:
            {signal}
            raise GraphError('the step cannot be recorded as a CUDA graph: no room')

    trainer.advance = refuse

if '_AAE_NO_CUDA_GRAPH' not in os.environ and {here}:
    threading.Thread(target=when_loaded, daemon=True).start()
"""


def _without_recording(folder: Path, *, here: str = "True", signal: str = "pass") -> Path:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_RECORDING.format(here=here, signal=signal))
    return folder


@pytest.mark.process
def test_a_graph_that_cannot_be_recorded_starts_the_process_anew(
    small_job: Job, uninterrupted: Traces, tmp_path: Path
) -> None:
    """In its own place, at once, from the last checkpoint and without graphs; said once, and the bytes are the same."""
    small_job.cold = True
    small_job.load_first(_without_recording(tmp_path / "site"))
    process = small_job.start()
    assert small_job.wait(process) == 0, small_job.output
    assert small_job.status()["pid"] == process.pid
    (warning,) = small_job.events("warning")
    assert warning["reason"] == "no_cuda_graph"
    assert warning["message"].endswith("no room: steps run one by one")
    assert [record["previous"] for record in small_job.events("resumed")] == ["stopped (no_graph)"]
    assert "waiting up to" not in small_job.output
    assert small_job.events("failed") == []
    assert small_job.traces() == uninterrupted


@pytest.mark.process
def test_a_signal_is_not_lost_where_the_process_starts_anew(small_job: Job, tmp_path: Path) -> None:
    """One that came in the same step as the refusal is served by the new beginning."""
    small_job.cold = True
    site = _without_recording(tmp_path / "site", signal="os.kill(os.getpid(), 15)")
    small_job.load_first(site)
    assert small_job.run() == 75, small_job.output
    assert [record["signal"] for record in small_job.events("signal")] == ["SIGTERM"]
    assert (small_job.status()["state"], small_job.status()["segment"]) == ("waiting", 2)


def test_a_job_starts_anew_without_graphs(job: SlurmJob, whole: Traces, tmp_path: Path) -> None:
    """Under submitit, in the same allocation: no requeue, no allowance."""
    site = _without_recording(tmp_path / "site", here="'submitit.core._submit' in ' '.join(sys.orig_argv)")
    job_id = job.submit(slurm_setup=f'["export PYTHONPATH={site}:$PYTHONPATH"]', slurm_max_stalls=1)
    job.wait_until_finished(job_id)
    assert [record["reason"] for record in job.events("warning")] == ["no_cuda_graph"]
    assert [record["previous"] for record in job.events("resumed")] == ["stopped (no_graph)"]
    assert job.traces() == whole
