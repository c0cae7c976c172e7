"""A training step recorded once as a CUDA graph and then replayed: one launch in place of a hundred."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from job.errors import GraphError

WARM_UP_STEPS = 3  # what torch's documentation asks for before a recording


def was_done_without(state: dict[str, Any], choice: bool | Literal["auto"], hardware: str) -> bool:
    """Whether the run of a checkpoint has trained without a graph on this very GPU, and nobody insists on one: it goes on so."""
    return choice == "auto" and state.get("cuda_graph") is False and state.get("hardware") == hardware


class GraphedStep:
    """A step that is run as it is until it is warm, then recorded, then replayed; all on the same numbers in the same order.

    `changed` are the tensors that a step changes, besides those that it makes. The first replay is compared with the same step
    run as it is: where one byte differs, `warn` is told so, and steps go on as they are.
    """

    def __init__(
        self, step: Callable[[Tensor], Tensor], changed: list[Tensor], device: torch.device, warn: Callable[[str], None]
    ) -> None:
        self._step = step
        self._changed = changed
        self._device = device
        self._warn = warn
        self._num_steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images: Tensor
        self._readings: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Train on images (B, X); returns what the step returns, in memory that the next call overwrites.

        Raises GraphError where the step cannot be recorded: the process can then compute no more.
        """
        self._num_steps += 1
        if self._num_steps <= WARM_UP_STEPS:
            return self._warm_up(images)
        if self._num_steps == WARM_UP_STEPS + 1:
            return self._begin(images)
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

    def _begin(self, images: Tensor) -> Tensor:
        """Record the step, and take it on images as it is and from the record; returns the readings."""
        self._images = images.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile, as an evaluation does.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._readings = self._step(self._images)
        except RuntimeError as error:
            raise GraphError(f"the step cannot be recorded as a CUDA graph: {error}") from error
        before = self._state()
        readings = self._step(images).clone()
        as_it_is = self._state()
        self._go_back_to(before)
        graph.replay()
        pairs = zip([*as_it_is, readings], [*self._state(), self._readings], strict=True)
        if all(torch.equal(*pair) for pair in pairs):
            self._graph = graph
        else:
            self._go_back_to(as_it_is)
            self._warn(
                "a CUDA graph of the step gives other bytes than the step itself on this GPU: steps run one by one"
            )
        return readings

    def _state(self) -> list[Tensor]:
        return [*(tensor.clone() for tensor in self._changed), torch.cuda.get_rng_state(self._device)]

    def _go_back_to(self, state: list[Tensor]) -> None:
        *changed, rng = state
        for tensor, value in zip(self._changed, changed, strict=True):
            tensor.copy_(value)
        torch.cuda.set_rng_state(rng, self._device)
