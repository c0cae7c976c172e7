"""What the steps since the last `step` record have read off, added up where they are."""

import math
from typing import Any

import torch
from torch import Tensor

from job.errors import HopelessError
from job.log.events import READINGS


class LossWindow:
    """Sums of READINGS on the device, so that the host waits for them only when it wants to see them."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(READINGS), dtype=torch.float64, device=device)
        self._num_steps = 0

    def add(self, readings: Tensor) -> None:
        """Take the readings of one step."""
        self._sums += readings
        self._num_steps += 1

    def means(self, step: int) -> dict[str, float]:
        """The means up to this step, in one transfer; raises HopelessError if one is not a finite number."""
        means = (self._sums / max(1, self._num_steps)).tolist()
        readings = dict(zip(READINGS, means, strict=True))
        broken = [name for name, value in readings.items() if not math.isfinite(value)]
        if broken:
            raise HopelessError(
                "nonfinite_loss",
                f"{', '.join(broken)} not a finite number within the {self._num_steps} steps up to step {step}: "
                "the same settings will meet it again; lower the learning rates under another AAE_RUN_NAME",
            )
        return readings

    def clear(self) -> None:
        """Begin anew."""
        self._sums.zero_()
        self._num_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on."""
        return {"window": self._sums, "window_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, which may hold more."""
        self._sums.copy_(state["window"])
        self._num_steps = state["window_steps"]
