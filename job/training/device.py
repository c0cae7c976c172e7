"""Where and how torch computes: the device, the threads, the precision of the products, determinism."""

import os
import platform
from collections.abc import Mapping

import torch

from job.config.settings import Settings
from job.errors import HopelessError


def prepare_torch(settings: Settings) -> tuple[torch.device, str | None]:
    """Set torch up as the settings say; returns the device, and what to warn of, None for nothing.

    Raises HopelessError if a GPU is expected and torch sees none.
    """
    torch.set_num_threads(settings.num_threads or 1)
    set_determinism(settings.deterministic)
    device = choose_device(settings.device)
    return device, use_precision(settings.precision, device)


def choose_device(wanted: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises HopelessError if a GPU is expected and torch sees none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available() and not _given_gpu(environment)):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    given = (
        f"the allocation names GPU {_given_gpu(environment)}" if wanted == "auto" else "AAE_DEVICE=cuda asks for a GPU"
    )
    raise HopelessError(
        "no_gpu",
        f"{given}, but torch {torch.__version__} sees none on host {platform.node()}: check `nvidia-smi` there, that this "
        f"torch is built for CUDA (built for: {torch.version.cuda}) and that the driver is new enough for it; "
        "AAE_DEVICE=cpu trains on the CPU on purpose",
    )


def _given_gpu(environment: Mapping[str, str]) -> str:
    """The GPUs that Slurm gave to this process, '' if none or outside an allocation."""
    if "SLURM_JOB_ID" not in environment:
        return ""
    names = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES")
    given = next((environment[n] for n in names if environment.get(n)), "")
    return "" if given == "NoDevFiles" else given


def device_name(device: torch.device) -> str:
    """A device's name for people: cpu, or cuda and the GPU's model."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


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
