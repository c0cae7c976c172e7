"""How torch multiplies, and the networks in the precision of the products, beside the weights that Adam moves."""

import copy
import os

import torch
from torch import Tensor

from aae.networks import AdversarialAutoencoder
from job.errors import HopelessError


def use_precision(precision: str, device: torch.device) -> str | None:
    """Tell torch how to multiply; returns what to warn of, None for nothing.

    Raises HopelessError for tf32 where there is no GPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise HopelessError(
            "no_gpu",
            f"AAE_PRECISION=tf32: only a GPU has it, and this process trains on the {device.type}; give the job a GPU, or "
            "take AAE_PRECISION=float32 or bfloat16 under another AAE_RUN_NAME",
        )
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    elif precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bfloat16 products: torch emulates them, several times slower than float32"
    return None


def set_determinism(deterministic: bool) -> None:
    """Let torch take deterministic algorithms only, or any."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    # Says the same as use_deterministic_algorithms(), which also loads the compiler: two seconds of every start.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Filling fresh memory guards against reading it before writing, which no kernel used here does; it costs a pass.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch types it wrongly


class Working:
    """The networks that the products read, and the gradients that they write.

    For bfloat16 they are a copy that follows the weights after every update, so that a weight is rounded once an update
    and not once a product; else they are the networks themselves.
    """

    def __init__(self, model: AdversarialAutoencoder, dtype: torch.dtype) -> None:
        self._is_copy = dtype != next(model.parameters()).dtype
        self.networks = copy.deepcopy(model).to(dtype) if self._is_copy else model
        self._weights, self._copies = _tensors(model), _tensors(self.networks)
        self.gradients = _empty_like(self._copies)
        self._full = _empty_like(self._weights) if self._is_copy else self.gradients

    def full_gradients(self, name: str) -> list[Tensor]:
        """A network's gradients in the precision of its weights."""
        if self._is_copy:
            torch._foreach_copy_(self._full[name], self.gradients[name])
        return self._full[name]

    @torch.no_grad()
    def follow(self, name: str) -> None:
        """Round a network's weights to the precision of the products, after they have changed."""
        if self._is_copy:
            torch._foreach_copy_(self._copies[name], self._weights[name])


def _tensors(model: AdversarialAutoencoder) -> dict[str, list[Tensor]]:
    """Each network's weights and biases, in the order of its parameters."""
    return {name: [p.detach() for p in network.parameters()] for name, network in model.named_children()}


def _empty_like(tensors: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    return {name: [torch.empty_like(t) for t in ts] for name, ts in tensors.items()}
