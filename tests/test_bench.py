"""`aae-job bench`: what it measures is what it says, and it prints it in both forms."""

import json
import statistics

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from aae.networks import AdversarialAutoencoder
from job.commands import bench
from job.config.settings import Settings
from job.data.images import load_images
from job.proofs.bench import Bench, Measured, modes_for, table
from job.proofs.bench_modes import AsLoaded, Mode, Products, notebook_picture
from job.training.phases import Phases

CPU = torch.device("cpu")


def test_the_floor_is_the_products_of_the_step() -> None:
    """The floor multiplies as much as a training step does, to the operation, as torch counts them."""
    settings = Settings(hidden_dim=32, batch_size=20, latent_dim=3)
    phases, products = Phases(AdversarialAutoencoder(3, 32), settings, CPU), Products(settings, CPU)

    def added(bias: object, a: object, b: object, out_shape: object = None, **_: object) -> int:
        return addmm_flop(bias, a, b)

    uncounted = torch.ops.aten._addmm_activation, torch.ops.aten.addmm_  # by torch itself

    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(uncounted, added)) as step:
        phases.step(torch.rand(20, 784))
    with FlopCounterMode(display=False) as floor:
        products.step()
    assert step.get_total_flops() == floor.get_total_flops() > 20 * 784 * 32


def test_the_lectures_data_are_the_same_images() -> None:
    """One by one through PIL and ToTensor come the numbers that this project makes of the whole batch."""
    settings = Settings()
    image, _ = AsLoaded(settings, CPU)[7]
    assert torch.equal(
        image.flatten(), load_images(settings.dataset, settings.data_dir, train=True).pixels[7].float() / 255
    )


def test_the_notebooks_picture_shows_a_hundred_codes() -> None:
    """It is drawn again and again without growing."""
    model = AdversarialAutoencoder(2, 8)
    draw = notebook_picture(model, Settings(hidden_dim=8))
    draw()
    draw()
    assert model.training


def test_bench_prints_a_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Modes take turns in processes of their own; times are positive, and the ratios fit them."""
    monkeypatch.setattr("job.proofs.bench.TURN_S", 0.05)
    monkeypatch.setattr("job.proofs.bench.modes_for", lambda _: [Mode("lecture"), Mode("ours"), Mode("floor")])
    arguments = ["--turns", "3", "--hidden-dim", "8", "--batch-size", "10", "--num-threads", "1", "--device", "cpu"]
    assert bench.run([*arguments, "--json"]) == 0
    lecture, ours, floor = json.loads(capsys.readouterr().out)["modes"]
    assert [mode["kind"] for mode in (lecture, ours, floor)] == ["lecture", "ours", "floor"]
    assert all(ms > 0 and len(mode["step_ms"]) == 3 for mode in (lecture, ours, floor) for ms in mode["step_ms"])
    assert (lecture["times_lecture"], lecture["times_floor"], floor["times_floor"]) == (1, None, None)
    # How fast each is depends on what else the machine does: what must hold is that the ratios are those of the turns.
    turns = list(zip(lecture["step_ms"], ours["step_ms"], floor["step_ms"], strict=True))
    assert ours["times_lecture"] == statistics.median(of_lecture / of_ours for of_lecture, of_ours, _ in turns)
    assert ours["times_floor"] == statistics.median(of_ours / of_floor for _, of_ours, of_floor in turns)


def test_the_table_has_a_row_for_every_mode() -> None:
    """Ratios are medians of ratios of turns that follow each other; only this project's rows have a floor."""
    modes = modes_for(CPU)
    measured = [Measured(mode, [10.0 * (i + 1), 20.0 * (i + 1)]) for i, mode in enumerate(modes)]
    lines = table(Bench(Settings(num_threads=2), "cpu", measured))
    rows = {
        mode: next(line for line in lines if line.startswith(f"{mode.name} ")).removeprefix(mode.name) for mode in modes
    }
    assert rows[Mode("lecture")].split() == ["66.7", "15.00", "12.50", "-", "17.50", "1.00"]
    assert rows[Mode("ours")].split() == ["22.2", "45.00", "37.50", "-", "52.50", "0.33", "0.60"]
    assert len(rows[Mode("floor", "bfloat16")].split()) == 6


def test_the_names_of_modes_tell_them_apart() -> None:
    """A row of the table says what it is."""
    modes = [Mode("ours"), Mode("ours", "tf32"), Mode("ours", "tf32", cuda_graph=True), Mode("floor"), Mode("lecture")]
    assert len({mode.name for mode in modes}) == len(modes)
