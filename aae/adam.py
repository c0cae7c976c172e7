"""torch's Adam without the rest of `torch.optim.Optimizer`, whose first use loads torch's compiler: two seconds of every start."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba, 2015) with torch's default betas, by torch's kernel that takes all parameters at once.

    `steps` is where the caller counts the steps, the present one included: a float32 tensor of one number on the parameters'
    device, which several may share, and which a recorded CUDA graph counts on.
    """

    def __init__(self, parameters: Iterable[Tensor], steps: Tensor, *, eps: float = 1e-8) -> None:
        self._parameters = list(parameters)
        self._eps = eps
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = [steps] * len(self._parameters)

    @torch.no_grad()
    def step(self, gradients: list[Tensor], lr: float | Tensor) -> None:
        """Move the parameters by one step, given a gradient for each; a recorded CUDA graph reads the rate from a tensor."""
        torch._fused_adam_(
            self._parameters,
            gradients,
            self._means,
            self._squares,
            [],
            self._steps,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    @property
    def moments(self) -> list[Tensor]:
        """The means of the gradients and of their squares, one of each for every parameter."""
        return self._means + self._squares

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of steps of each parameter."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, own in self.state_dict().items():
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)
