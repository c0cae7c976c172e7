"""Where and how torch computes: the device, the threads, the precision of the products, determinism."""

import contextlib
import ctypes
import os
import platform
import time
from collections.abc import Mapping

import torch

from job.config.settings import Settings
from job.errors import HopelessError
from job.machine import cpu_model

_SLOWER = 1.1  # bfloat16 is told to be slow from here on
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare_torch(settings: Settings, no_graph: str | None = None) -> tuple[torch.device, list[tuple[str, str]]]:
    """Set torch up as the settings say; returns the device, and what to warn of: (reason, message).

    `no_graph` is why no CUDA graph can be recorded here, None if that is not known. Raises HopelessError if a GPU is expected
    and torch sees none.
    """
    torch.set_num_threads(settings.num_threads or 1)
    keep_speed()
    set_determinism(settings.deterministic)
    device = choose_device(settings.device)
    unused, slow = unused_gpu(settings.device), use_precision(settings, device)
    if settings.cuda_graph is True and device.type != "cuda":
        no_graph = "AAE_CUDA_GRAPH=true needs a GPU"
    one_by_one = f"{no_graph}: steps run one by one" if no_graph is not None else None
    warnings = {"unused_gpu": unused, "slow_precision": slow, "no_cuda_graph": one_by_one}
    return device, [(reason, message) for reason, message in warnings.items() if message is not None]


def choose_device(wanted: str, environment: Mapping[str, str] = os.environ) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; raises HopelessError if a GPU is expected and torch sees none.

    In an allocation `auto` takes a GPU only if Slurm gave one: another that torch sees may be somebody else's.
    """
    expected = bool(_given_gpu(environment)) if _in_allocation(environment) else torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not expected):
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


def unused_gpu(wanted: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What to warn of where `auto` leaves a GPU alone that torch sees, None for nothing."""
    if wanted != "auto" or not _in_allocation(environment) or _given_gpu(environment) or not torch.cuda.is_available():
        return None
    return (
        "torch sees a GPU, but Slurm gave this job none, so it trains on the CPU; on a cluster that does not hand out GPUs by "
        "itself, AAE_DEVICE=cuda takes it"
    )


def _in_allocation(environment: Mapping[str, str]) -> bool:
    return "SLURM_JOB_ID" in environment


def _given_gpu(environment: Mapping[str, str]) -> str:
    """The GPUs, or shares of one, that Slurm gave to this process, '' if none.

    CUDA_VISIBLE_DEVICES tells nothing of that: it may be inherited from the shell that has submitted.
    """
    if given := environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS"):
        return given
    counts = (environment.get(name, "0") for name in ("SLURM_GPUS_ON_NODE", "SLURM_SHARDS_ON_NODE"))
    return next((f"(number {count})" for count in counts if count != "0"), "")


def device_name(device: torch.device) -> str:
    """A device's name for people: cpu, or cuda and the GPU's model."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def hardware(device: torch.device) -> str:
    """The model of the GPU, or of the processor, that computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def use_precision(settings: Settings, device: torch.device) -> str | None:
    """Tell torch how to multiply; returns what to warn of, None for nothing.

    Raises HopelessError for tf32 where there is no GPU.
    """
    precision = settings.precision
    if precision == "tf32" and device.type != "cuda":
        raise HopelessError(
            "precision",
            f"AAE_PRECISION=tf32: only a GPU has it, and this process trains on the {device.type}; give the job a GPU, or "
            "take AAE_PRECISION=float32 or bfloat16 under another AAE_RUN_NAME",
        )
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    elif precision == "bfloat16" and (times := _times_float32(settings)) > _SLOWER:
        return (
            f"a product of bfloat16 numbers takes {times:.1f} times as long on this CPU ({cpu_model()}) as one of float32: "
            "under another AAE_RUN_NAME, AAE_PRECISION=float32 is faster"
        )
    return None


def _times_float32(settings: Settings) -> float:
    """How many times as long a hidden layer's product takes in bfloat16, on this machine now: which do so fast is not told."""
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(settings.batch_size, settings.hidden_dim, dtype=dtype)
        weight = torch.ones(settings.hidden_dim, settings.hidden_dim, dtype=dtype)
        seconds = []
        for _ in range(4):  # the first loads and compiles
            began = time.perf_counter()
            torch.mm(x, weight)
            seconds.append(time.perf_counter() - began)
        took[dtype] = min(seconds)
    return took[torch.bfloat16] / took[torch.float32]


def keep_speed() -> None:
    """Make a step on the CPU as fast after days as it is at first; to be called before torch's first computation.

    Adam's moments of weights that get no gradient any more decay into subnormal numbers, which processors compute many times
    slower, so they count as 0 here. That is a state of each thread, which the threads that torch starts later inherit.
    """
    torch.set_flush_denormal(True)  # False, and no harm, on a processor that has no such mode
    # Activations of one step lie where those of the step before were, instead of in memory that the kernel has to clear again.
    with contextlib.suppress(AttributeError):  # a libc that is not GNU's
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**28)


def set_determinism(deterministic: bool) -> None:
    """Let torch take deterministic algorithms only, or any."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    # Says the same as use_deterministic_algorithms(), which also loads the compiler: two seconds of every start.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Filling fresh memory guards against reading it before writing, which no kernel used here does; it costs a pass.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch types it wrongly
