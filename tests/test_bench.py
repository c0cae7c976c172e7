"""`aae-job bench`: what it measures is what it says, and it prints it in both forms."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from aae.lecture import lecture_step
from aae.networks import AdversarialAutoencoder
from job.commands import bench
from job.config.settings import Settings
from job.data.images import load_images
from job.proofs.bench import Bench, Measured, modes_for, table
from job.proofs.bench_beside import Beside
from job.proofs.bench_modes import AsLoaded, Mode, Products, lecture_from, notebook_picture
from job.training.phases import Phases, new_model

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
    image, _ = AsLoaded(settings)[7]
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


SMALL = ["--hidden-dim", "8", "--batch-size", "10", "--num-threads", "1", "--device", "cpu", "--max-steps", "400"]


@pytest.mark.process
def test_bench_prints_a_table_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Modes take turns in processes of their own, fresh and aged; times are positive, and the ratios fit them."""
    monkeypatch.setattr("job.proofs.bench.TURN_S", 0.05)
    monkeypatch.setattr("job.proofs.bench.AGE_STEPS", 20)
    monkeypatch.setattr("job.proofs.bench.modes_for", lambda *_, **__: [Mode("lecture"), Mode("ours"), Mode("floor")])
    monkeypatch.chdir(tmp_path)
    assert bench.run(["--turns", "3", *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    lecture, ours, floor = found["modes"]
    assert [mode["kind"] for mode in (lecture, ours, floor)] == ["lecture", "ours", "floor"]
    for state in ("fresh", "aged"):
        turns = [mode[state]["step_ms"] for mode in (lecture, ours, floor)]
        assert all(ms > 0 and len(of_mode) == 3 for of_mode in turns for ms in of_mode)
        assert (lecture[state]["times_lecture"], lecture[state]["times_floor"], floor[state]["times_floor"]) == (
            1,
            None,
            None,
        )
        # How fast each is depends on what else the machine does: what must hold is that the ratios are those of the turns.
        both = list(zip(*turns, strict=True))
        assert ours[state]["times_lecture"] == statistics.median(
            of_lecture / of_ours for of_lecture, of_ours, _ in both
        )
        assert ours[state]["times_floor"] == statistics.median(of_ours / of_floor for _, of_ours, of_floor in both)
    pairs = zip(ours["aged"]["step_ms"], ours["fresh"]["step_ms"], strict=True)
    assert ours["aged_by_fresh"] == statistics.median(aged / fresh for aged, fresh in pairs)
    beside = {row["name"]: row for row in found["beside"]}
    assert (beside["evaluation"]["times"], beside["log record"]["times"]) == (0, 4)  # of a run of 400 steps
    assert all(row["ms"] > 0 for row in beside.values())
    assert found["seconds_to_first_step"] > 0 < found["seconds_from_last_step"]
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.process
def test_bench_measures_the_time_to_a_quality(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both trained and measured alike; what is said of them fits their figures."""
    monkeypatch.chdir(tmp_path)
    assert bench.run(["--quality", "2", *SMALL]) == 0
    table = capsys.readouterr().out.splitlines()
    lecture, ours = (line.split()[-4:] for line in table[1:3])
    assert (lecture[0], ours[0]) == ("2", "400")
    is_better = all(float(mine) <= float(theirs) for mine, theirs in zip(ours[2:], lecture[2:], strict=True))
    assert ("at least as good" in table[3]) == is_better


@pytest.mark.process
def test_a_process_that_measures_is_this_project_s_own(tmp_path: Path) -> None:
    """Whatever lies in the folder in which the command is typed."""
    for name in ("job.py", "torch.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')\n")
    script = tmp_path / "bin" / "script"  # as a console script, whose own folder is first on the module path
    script.parent.mkdir()
    script.write_text(
        "import os\nfrom job.proofs.children import alone\nif __name__ == '__main__':\n    print(alone(os.getpid))\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0


def test_an_aged_state_continues_in_every_mode() -> None:
    """The lecture's networks and Adams go on from it as this project's: the same moments, at the same step."""
    settings = Settings(hidden_dim=8)
    phases = Phases(new_model(settings), settings, CPU)
    phases.step(torch.rand(10, 784))
    phases.step(torch.rand(10, 784))
    state = phases.state_dict()
    model, optimizers = lecture_from(settings, CPU, state)
    for ours, theirs in zip(phases.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, adam in optimizers.by_name().items():
        found = [adam.state[p] for p in adam.param_groups[0]["params"]]
        assert all(torch.equal(a["exp_avg"], b) for a, b in zip(found, state["optimizers"][name]["means"], strict=True))
        assert {float(one["step"]) for one in found} == {2.0}
    lecture_step(model, optimizers, torch.rand(10, 784))
    assert not torch.equal(model.decoder.output.weight, phases.model.decoder.output.weight)


def test_the_table_has_a_row_for_every_mode() -> None:
    """Ratios are medians of ratios of turns that follow each other; only this project's rows have a floor."""
    modes = modes_for(CPU, Settings(), short=False)
    measured = [Measured(mode, [10.0 * (i + 1), 20.0 * (i + 1)], [20.0 * (i + 1)] * 2) for i, mode in enumerate(modes)]
    result = Bench(
        Settings(num_threads=2, max_steps=1000), "cpu", measured, [Beside("evaluation", 30.0, 5)], (1.5, 2.0)
    )
    lines = table(result)
    rows = {
        mode: next(line for line in lines if line.startswith(f"{mode.name} ")).removeprefix(mode.name) for mode in modes
    }
    assert rows[Mode("lecture")].split() == ["15.00", "20.00", "1.50", "1.00", "1.00"]
    assert rows[Mode("ours")].split() == ["45.00", "60.00", "1.50", "0.33", "0.33", "0.60", "0.60"]
    assert len(rows[Mode("floor", "bfloat16")].split()) == 5
    assert "Fastest here: aae-job, float32" in "\n".join(lines)
    evaluation = next(line for line in lines if line.startswith("evaluation"))
    assert evaluation.split()[1:] == ["30.00", "5.0", "0.25%"]  # 150 ms of a minute


def test_the_names_of_modes_tell_them_apart() -> None:
    """A row of the table says what it is."""
    modes = [Mode("ours"), Mode("ours", "tf32"), Mode("ours", "tf32", cuda_graph=True), Mode("floor"), Mode("lecture")]
    assert len({mode.name for mode in modes}) == len(modes)
