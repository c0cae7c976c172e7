"""What `aae-job bench` measures: each mode trains, or does a part of it, for a number of steps in a process of its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from aae.backprop import unit_by_unit
from aae.lattice import Lattice
from aae.lecture import LectureOptimizers, train_as_the_lecture
from aae.networks import IMAGE_SIDE, AdversarialAutoencoder, Perceptron
from job.config.settings import Settings
from job.data.batches import Batches
from job.data.images import load_images
from job.training.device import keep_speed, set_determinism, use_precision
from job.training.graph import GraphedStep
from job.training.loss_window import LossWindow
from job.training.phases import Phases, new_model

Step = Callable[[], object]


State = dict[str, Any]  # as `Phases.state_dict` gives it


@dataclass(frozen=True)
class Mode:
    """One thing to measure; `kind` is lecture, notebook, ours or floor."""

    kind: str
    precision: str = "float32"
    cuda_graph: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        precision = f"{self.precision}, CUDA graph" if self.cuda_graph else self.precision
        return {
            "lecture": "the lecture's loop, as written",
            "notebook": "... with the notebook's pictures",
            "ours": f"aae-job, {precision}",
            "floor": f"matrix products alone, {precision}",
        }[self.kind]


def serve(mode: Mode, settings: Settings, device_type: str, aged: State, connection: Connection) -> None:
    """Run in a process of its own: for each (number, whether aged) received, do so many steps and send the seconds; None ends it.

    A step that is not aged begins with new weights, an aged one with those of `aged` and their optimisers' moments.
    """
    torch.set_num_threads(settings.num_threads or 1)
    if mode.kind == "ours":
        keep_speed()
    device = torch.device(device_type)
    settings = settings.model_copy(update={"precision": mode.precision})
    torch.manual_seed(settings.seed)
    steps = {is_aged: _step(mode, settings, device, state) for is_aged, state in ((False, None), (True, aged))}
    while (asked := connection.recv()) is not None:
        num_steps, is_aged = asked
        began = perf_counter()
        for _ in range(num_steps):
            steps[is_aged]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        connection.send(perf_counter() - began)


def _step(mode: Mode, settings: Settings, device: torch.device, state: State | None) -> Step:
    use_precision(settings, device)
    if mode.kind == "floor":
        return Products(settings, device).step
    if mode.kind == "ours":
        return _ours(settings, device, state, cuda_graph=mode.cuda_graph)
    model, optimizers = lecture_from(settings, device, state)
    losses = train_as_the_lecture(model, AsLoaded(settings), settings.batch_size, settings.prior_std, optimizers)
    if mode.kind == "lecture":
        return lambda: next(losses)
    draw = notebook_picture(model, settings)

    def step() -> None:
        next(losses)
        draw()

    return step


def lecture_from(
    settings: Settings, device: torch.device, state: State | None
) -> tuple[AdversarialAutoencoder, LectureOptimizers]:
    """The lecture's networks and optimisers, new or as a state of this project's has them."""
    model = AdversarialAutoencoder(settings.latent_dim, settings.hidden_dim).to(device)
    optimizers = LectureOptimizers(model)
    if state is not None:
        model.load_state_dict(state["model"])
        for name, adam in optimizers.by_name().items():
            found = state["optimizers"][name]
            for parameter, mean, square, steps in zip(
                adam.param_groups[0]["params"], found["means"], found["squares"], found["steps"], strict=True
            ):
                moments = {"exp_avg": mean.to(device, copy=True), "exp_avg_sq": square.to(device, copy=True)}
                adam.state[parameter] = {"step": steps.clone().cpu(), **moments}
    return model, optimizers


def _ours(settings: Settings, device: torch.device, state: State | None, *, cuda_graph: bool) -> Step:
    set_determinism(settings.deterministic)
    batches = Batches(
        load_images(settings.dataset, settings.data_dir, train=True).pixels, settings.batch_size, settings.seed, device
    )
    phases = Phases(new_model(settings).to(device), settings, device)
    if state is not None:
        phases.load_state_dict(state)
    train: Callable[[Tensor], Tensor] = phases.step
    if cuda_graph:
        train = GraphedStep(train, phases.changed, device, _refuse)
    window = LossWindow(device)

    def steps() -> Iterator[None]:
        number = 0
        while True:
            number += 1
            window.add(train(batches.at(number)))
            yield

    numbered = steps()
    return lambda: next(numbered)


def _refuse(message: str) -> None:
    raise RuntimeError(message)


def aged_state(settings: Settings, device_type: str, num_steps: int, path: Path) -> None:
    """Train so many steps on batches of ten images and save the state: it is their number that ages, not their size.

    With torch's defaults, so that subnormal numbers stay what they are.
    """
    torch.set_num_threads(settings.num_threads or 1)
    device = torch.device(device_type)
    torch.manual_seed(settings.seed)
    small = settings.model_copy(update={"batch_size": min(10, settings.batch_size), "precision": "float32"})
    phases = Phases(new_model(small).to(device), small, device)
    images = load_images(small.dataset, small.data_dir, train=True).pixels
    batches = Batches(images, small.batch_size, small.seed, device)
    for step in range(1, num_steps + 1):
        phases.step(batches.at(step))
    torch.save(phases.state_dict(), path)


class AsLoaded(Dataset[tuple[Tensor, int]]):
    """The training images as torchvision's data sets hand them out: a PIL image, then ToTensor, one by one."""

    def __init__(self, settings: Settings) -> None:
        from torchvision.transforms import ToTensor

        self._images = (
            load_images(settings.dataset, settings.data_dir, train=True).pixels.view(-1, IMAGE_SIDE, IMAGE_SIDE).numpy()
        )
        self._to_tensor = ToTensor()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._to_tensor(Image.fromarray(self._images[index])), 0


def notebook_picture(model: AdversarialAutoencoder, settings: Settings) -> Callable[[], None]:
    """What the notebook does after every step: decode 100 codes and draw them into 100 matplotlib axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(10, 10)))
    axes = canvas.figure.subplots(10, 10).flatten()
    device = next(model.parameters()).device
    codes = Lattice(10, settings.lattice_extent, "unit", settings.latent_dim, settings.prior_std).codes().to(device)

    @torch.no_grad()
    def draw() -> None:
        model.decoder.eval()
        images = torch.sigmoid(model.decoder(codes)).view(-1, IMAGE_SIDE, IMAGE_SIDE).cpu().numpy()
        model.decoder.train()
        for axis, image in zip(axes, images, strict=True):
            axis.clear()
            axis.imshow(image, cmap="gray_r")
            axis.set_axis_off()
        canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib types a part of itself

    return draw


class Products:
    """The matrix products of a step alone: same shapes, order, layout and precision, same weights read and gradients written."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        model = AdversarialAutoencoder(settings.latent_dim, settings.hidden_dim)
        self._model = model.to(device, dtype)
        self._gradients: dict[Tensor, Tensor] = {
            p: torch.empty_like(p, requires_grad=False) for p in self._model.parameters() if p.dim() == 2
        }
        self._num_images = settings.batch_size
        self._made: dict[tuple[int, ...], Tensor] = {}
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}

    @torch.no_grad()
    def step(self) -> None:
        """All products of one step."""
        encoder, decoder, discriminator = self._model.encoder, self._model.decoder, self._model.discriminator
        num = self._num_images
        # Reconstruct.
        self._forward(encoder, num)
        self._forward(decoder, num)
        self._backward(decoder, num, inputs=True)
        self._backward(encoder, num)
        # Discriminate.
        self._forward(encoder, num)
        self._forward(discriminator, 2 * num)
        self._backward(discriminator, 2 * num)
        # Fool: the encoder's first product is known.
        self._forward(encoder, num, first=False)
        self._forward(discriminator, num)
        self._backward(discriminator, num, weights=False, inputs=True)
        self._backward(encoder, num)

    def _forward(self, network: Perceptron, num: int, *, first: bool = True) -> None:
        for layer in (network.hidden1, network.hidden2, network.output)[0 if first else 1 :]:
            self._product(self._of(num, layer.in_features), layer.weight.t())

    def _backward(self, network: Perceptron, num: int, *, weights: bool = True, inputs: bool = False) -> None:
        for layer in (network.output, network.hidden2, network.hidden1):
            gradient = self._of(num, layer.out_features)
            if inputs or layer is not network.hidden1:
                self._product(gradient, layer.weight)
            if weights:
                torch.mm(gradient.t(), self._of(num, layer.in_features), out=self._gradients[layer.weight])

    def _product(self, a: Tensor, b: Tensor) -> None:
        out = self._of(len(a), b.shape[1], 1)
        if unit_by_unit(a):
            torch.mm(b.t(), a.t(), out=out.t())
        else:
            torch.mm(a, b, out=out)

    def _of(self, *shape: int) -> Tensor:
        """A tensor of this shape, the same one each time; a third number tells outputs from inputs."""
        if shape not in self._made:
            num, units = shape[:2]
            made = torch.randn(num, units, **self._like)
            self._made[shape] = made.t().contiguous().t() if unit_by_unit(made) else made
        return self._made[shape]
