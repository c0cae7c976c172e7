"""A training step recorded once as a CUDA graph and then replayed: one launch in place of some two hundred."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3  # what torch's documentation asks for before a recording


class GraphedStep:
    """A step that is run as it is until it is warm, then recorded, then replayed; all on the same numbers in the same order.

    Where it cannot be recorded, `warn` is told the reason once, and it goes on as it is.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], device: torch.device, warn: Callable[[str], None]) -> None:
        self._step = step
        self._warn = warn
        self._num_steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images: Tensor
        self._readings: Tensor
        self._can_record = device.type == "cuda"

    def __call__(self, images: Tensor) -> Tensor:
        """Train on images (B, X); returns what the step returns, in memory that the next call overwrites."""
        self._num_steps += 1
        if not self._can_record:
            if self._num_steps == 1:
                self._warn("AAE_CUDA_GRAPH=true needs a GPU: steps run one by one")
            return self._step(images)
        if self._num_steps <= WARM_UP_STEPS:
            return self._warm_up(images)
        self._graph = self._graph or self._recording(images)
        if self._graph is None:
            return self._step(images)
        self._images.copy_(images)
        self._graph.replay()
        return self._readings

    def _warm_up(self, images: Tensor) -> Tensor:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            readings = self._step(images)
        torch.cuda.current_stream().wait_stream(stream)
        return readings

    def _recording(self, images: Tensor) -> torch.cuda.CUDAGraph | None:
        self._images = images.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile, as an evaluation does.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._readings = self._step(self._images)
        except RuntimeError as error:
            self._can_record = False
            self._warn(f"the step cannot be recorded as a CUDA graph: {error}; steps run one by one")
            return None
        return graph
