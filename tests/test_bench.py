"""`aae-job bench`: what it measures is what it says, and it prints it in both forms."""

import json
import subprocess
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from aae.networks import AdversarialAutoencoder
from job.bench_modes import AsLoaded, Mode, Products, notebook_picture
from job.data import load_training_images
from job.phases import Phases
from job.settings import Settings

CPU = torch.device("cpu")


def test_the_floor_is_the_products_of_the_step() -> None:
    """The floor multiplies as much as a training step does, to the operation, as torch counts them."""
    settings = Settings(hidden_dim=32, batch_size=20, latent_dim=3)
    phases, products = Phases(AdversarialAutoencoder(3, 32), settings, CPU), Products(settings, CPU)
    with FlopCounterMode(display=False) as step:
        phases.step(torch.rand(20, 784))
    with FlopCounterMode(display=False) as floor:
        products.step()
    assert step.get_total_flops() == floor.get_total_flops() > 20 * 784 * 32


def test_the_lectures_data_are_the_same_images() -> None:
    """One by one through PIL and ToTensor come the numbers that this project makes of the whole batch."""
    settings = Settings()
    image, _ = AsLoaded(settings, CPU)[7]
    assert torch.equal(image.flatten(), load_training_images(settings)[7].float() / 255)


def test_the_notebooks_picture_shows_a_hundred_codes() -> None:
    """It is drawn again and again without growing."""
    model = AdversarialAutoencoder(2, 8)
    draw = notebook_picture(model, Settings(hidden_dim=8))
    draw()
    draw()
    assert model.training


def test_bench_prints_a_table_and_json() -> None:
    """Every mode of this device is there, with positive times and ratios that fit them."""
    command = [sys.executable, "-P", "-m", "job", "bench", "--turns", "2", "--json"]
    command += ["--hidden-dim", "8", "--batch-size", "10", "--num-threads", "1", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    modes = json.loads(done.stdout)["modes"]
    kinds = [(mode["kind"], mode["precision"]) for mode in modes]
    assert kinds == [
        ("lecture", "float32"),
        ("notebook", "float32"),
        ("ours", "float32"),
        ("ours", "bfloat16"),
        ("floor", "float32"),
        ("floor", "bfloat16"),
    ]
    by_kind = {kind: mode for kind, mode in zip(kinds, modes, strict=True)}
    assert all(ms > 0 and len(mode["step_ms"]) == 2 for mode in modes for ms in mode["step_ms"])
    assert by_kind["lecture", "float32"]["times_lecture"] == 1
    assert by_kind["notebook", "float32"]["times_lecture"] < 1 < by_kind["ours", "float32"]["times_lecture"]
    assert by_kind["ours", "float32"]["times_floor"] > 1
    assert by_kind["lecture", "float32"]["times_floor"] is None


def test_the_names_of_modes_tell_them_apart() -> None:
    """A row of the table says what it is."""
    modes = [Mode("ours"), Mode("ours", "tf32"), Mode("ours", "tf32", cuda_graph=True), Mode("floor"), Mode("lecture")]
    assert len({mode.name for mode in modes}) == len(modes)
