"""What only a GPU can show: that recorded steps give the same bytes, and that the loop never waits for it."""

from pathlib import Path

import torch
from torch import Tensor

from job.config.settings import Settings
from job.data.batches import Batches
from job.data.images import load_images
from job.errors import GraphError
from job.log.writer import EventLog
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox
from job.training.averaged_weights import AveragedWeights
from job.training.device import prepare_torch
from job.training.graph import WARM_UP_STEPS, GraphedStep
from job.training.phases import Phases, new_model
from job.training.trainer import Trainer


def state_after(settings: Settings, num_steps: int, *, graph: bool) -> list[Tensor]:
    """All tensors that so many steps leave, the averages and the readings too, with steps recorded or one by one."""
    device, _ = prepare_torch(settings)
    images = load_images(settings.dataset, settings.data_dir, train=True).pixels
    batches = Batches(images, settings.batch_size, settings.seed, device)
    torch.manual_seed(settings.seed)
    model = new_model(settings).to(device)
    phases = Phases(model, settings, device)
    average = AveragedWeights(model, settings.ema_decay)
    told: list[str] = []
    train = GraphedStep(phases.step, phases.changed, device, told.append) if graph else phases.step
    readings = []
    for step in range(1, num_steps + 1):
        phases.set_rates(1 - step / num_steps if settings.lr_schedule == "cosine" else 1.0)
        readings.append(train(batches.at(step)).clone())
        average.follow(step)
    if told:
        raise RuntimeError(told[0])
    return [*phases.changed, *average.model.state_dict().values(), *readings, torch.cuda.get_rng_state(device)]


def graph_gives_the_same_bytes(settings: Settings, num_steps: int = 40) -> bool:
    """Whether recorded steps leave what steps one by one leave; raises GraphError where they cannot be recorded."""
    one_by_one, recorded = (state_after(settings, num_steps, graph=graph) for graph in (False, True))
    return all(torch.equal(a, b) for a, b in zip(one_by_one, recorded, strict=True))


def refuses_what_cannot_be_recorded(settings: Settings) -> bool:
    """Whether a recording that is made to fail, by a wait for the GPU within it, ends in GraphError; spoils this process."""
    device, _ = prepare_torch(settings)
    phases = Phases(new_model(settings).to(device), settings, device)

    def waits(images: Tensor) -> Tensor:
        readings = phases.step(images)
        torch.cuda.synchronize()
        return readings

    train = GraphedStep(waits, phases.changed, device, lambda _: None)
    images = torch.rand(settings.batch_size, 28 * 28, device=device)
    try:
        for _ in range(WARM_UP_STEPS + 1):
            train(images)
    except GraphError:
        return True
    return False


def describe_gpu(settings: Settings) -> str | None:
    """The GPU that torch computes on, with its compute capability and torch's CUDA; None if it sees none.

    Multiplies there; raises RuntimeError where driver, torch and GPU do not fit together.
    """
    if not torch.cuda.is_available():
        return None
    product = torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")
    if product.sum().item() != 64**3:
        raise RuntimeError("a product of ones on the GPU has a wrong sum")
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, capability {major}.{minor}, torch {torch.__version__} with CUDA {torch.version.cuda}"


def train_without_waiting(settings: Settings, folder: Path, num_steps: int = 60) -> None:
    """Train so many steps with everything beside them that is not meant to wait; torch raises RuntimeError where the host does.

    Log records, lattices, checkpoints, and the end of an evaluation are meant to.
    """
    never = {"log_every_steps": 10**9, "lattice_every_steps": 10**9, "checkpoint_every_s": 10**9}
    settings = settings.model_copy(update={**never, "evaluate_every_steps": 50, "max_steps": 10**9})
    device, _ = prepare_torch(settings)
    run_dir = RunDir(folder)
    outbox = Outbox(run_dir)
    trainer = Trainer(settings, device, run_dir, outbox, EventLog(run_dir, 1, outbox))
    trainer.monitor.measure = lambda step: ({}, step)  # type: ignore[method-assign,assignment,return-value]  # it waits, beside
    for _ in range(10):  # over what is recorded, and its comparison
        trainer.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(num_steps):
            trainer.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.close()
        outbox.close()
