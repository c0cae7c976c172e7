"""torch's Adam without the rest of `torch.optim.Optimizer`, whose first use loads torch's compiler: two seconds of every start."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba, 2015) with torch's default betas, by torch's own functional form.

    `fused` takes one kernel for all parameters, which the CPU and CUDA have.
    """

    def __init__(self, parameters: Iterable[Tensor], *, eps: float = 1e-8, fused: bool) -> None:
        self.parameters = list(parameters)
        self._eps = eps
        self._fused = fused
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        # Where the kernel that counts them looks for them.
        self._steps = [torch.zeros((), device=p.device if fused else "cpu") for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], lr: float | Tensor) -> None:
        """Move the parameters by one step, given a gradient for each; a recorded CUDA graph reads the rate from a tensor."""
        adam(
            self.parameters,
            gradients,
            self._means,
            self._squares,
            [],
            self._steps,
            fused=self._fused,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=self._eps,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of steps of each parameter."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, own in self.state_dict().items():
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)
