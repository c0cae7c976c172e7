"""Sweeps without a Slurm: which runs some axes make, what is refused, and whose job an element of an array is."""

import os
import threading
import time
from pathlib import Path

import pytest
from commands import Commands

from job.commandline import Parser
from job.config.flags import Flags, add_settings, read_flags
from job.config.settings_file import Record
from job.config.sources import spelt
from job.errors import AaeError, SettingsError, UsageError
from job.rundir.directory import RunDir
from job.rundir.find import find_run, find_runs
from job.rundir.liveness import Owner
from job.rundir.status import State, Status, now, write_status
from job.rundir.sweep import Array, Sweep, SweepDir, Sweeps, run_of_script
from slurm.login.batch_script import Order, script_text
from slurm.login.status import run as status
from slurm.login.submit import run as submit
from slurm.login.submitter import only_submitter
from slurm.login.sweep.axes import Asked, ask, loop_to_type, read_axes
from slurm.login.sweep.plan import chunks, plan_sweep
from slurm.scheduler.queue import Job


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
    monkeypatch.setenv("AAE_RUNS_DIR", str(tmp_path / "runs"))
    commands.queue()


def _flags(*arguments: str) -> Flags:
    parser = Parser("aae-slurm submit", "", "")
    parser.add_argument("--sweep", action="append", default=[])
    add_settings(parser)
    return read_flags(parser, list(arguments))


def _asked(*arguments: str) -> Asked:
    flags = _flags(*arguments)
    return ask(read_axes(flags.options.sweep), flags)


def _runs_of(*arguments: str) -> list[str]:
    return [element.run for element in _asked(*arguments).sweep.elements]


def _make(asked: Asked, *, state: State = "submitted") -> SweepDir:
    """Write the runs of a sweep, and it, as a submit does."""
    sweep_dir = SweepDir.named(asked.runs_dir, asked.sweep.name)
    sweep_dir.slurm.mkdir(parents=True)
    for configuration in asked.runs.values():
        run_dir = RunDir(configuration.settings.run_dir)
        run_dir.path.mkdir()
        Record.of(configuration).write(run_dir)
        write_status(run_dir, Status(state=state, total_steps=10))
    indices = [element.index for element in asked.sweep.elements]
    array = Array(number=1, job_id="7", indices=indices, submitted_at=now())
    sweep_dir.write(asked.sweep.model_copy(update={"arrays": [array]}))
    return sweep_dir


def test_axes_make_their_product_the_first_slowest() -> None:
    """Values as the settings spell them, ranges with both ends, values that go together, the name by what differs."""
    sweep = _asked("--sweep", "latent-dim=2,8", "--sweep", "seed=0..2", "--run-name", "s").sweep
    assert [element.run for element in sweep.elements] == [
        f"s--latent_dim={dim}--seed={seed}" for dim in (2, 8) for seed in (0, 1, 2)
    ]
    assert [element.index for element in sweep.elements] == list(range(6))
    assert (sweep.name, [axis.values for axis in sweep.axes]) == ("s", [[[2], [8]], [[0], [1], [2]]])
    together = _asked("--sweep", "AAE_LATENT_DIM,prior_std=2:1,8:5e0", "--run-name", "s").sweep
    assert [element.values for element in together.elements] == [
        {"latent_dim": 2, "prior_std": 1.0},
        {"latent_dim": 8, "prior_std": 5.0},
    ]
    assert together.elements[1].run == "s--latent_dim=8--prior_std=5.0"
    assert "seed" in together.base
    assert "prior_std" not in together.base


def test_elements_bear_their_usual_names_and_the_sweep_one_of_its_own() -> None:
    """A run that was trained alone is the same one; the sweep's name depends on axes and base, and on nothing else."""
    (alone,) = {configuration.settings.name for configuration in _asked("--sweep", "seed=3").runs.values()}
    assert alone == "digits-2d-seed3-" + alone[-8:]
    assert alone in _runs_of("--sweep", "seed=0..4")
    names = [
        _asked(*arguments).sweep.name
        for arguments in (
            ("--sweep", "seed=0..1"),
            ("--sweep", "seed=0,1", "--seed", "9"),
            ("--sweep", "seed=0..2"),
            ("--sweep", "seed=0..1", "--hidden-dim", "7"),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert all(name.startswith("sweep-") for name in names)


def test_a_large_number_is_a_name() -> None:
    """Python writes 1e+30, and a name has no plus."""
    names = _runs_of("--run-name", "s", "--sweep", "generator_lr=0.0002,1e30")
    assert names == ["s--generator_lr=0.0002", "s--generator_lr=1e30"]
    assert spelt({"mail-user": "jane+x@host"}) == '{"mail-user": "jane+x@host"}'


def test_recipes_are_an_axis() -> None:
    """Each element has its recipe's values."""
    asked = _asked("--sweep", "recipe=lecture,tuned")
    assert [configuration.settings.batch_size for configuration in asked.runs.values()] == [100, 500]
    assert "batch_size" not in asked.sweep.base


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["seed"], "write FIELD=VALUE,VALUE"),
        (["seed="], "write FIELD=VALUE,VALUE"),
        (["seed=1,,2"], "a value is empty"),
        (["seeds=1"], "'seeds' is not a setting; did you mean seed?"),
        (["slurm_time=1,2"], "AAE_SLURM_TIME is of the allocation"),
        (["runs_dir=a,b"], "AAE_RUNS_DIR says where runs are"),
        (["run-name=a,b"], "AAE_RUN_NAME says where runs are"),
        (["seed=4..2"], "4..2 has no number in it"),
        (["seed=0..10000000000000"], "more than the 10,000"),
        (["seed=0..200", "latent_dim=2..200"], "39,999 runs are more than the 10,000"),
        (["latent_dim,prior_std=2:1,8"], "'8' has 1 values for the 2 settings"),
        (["seed=0,1", "latent_dim,seed=2:3"], "AAE_SEED is in more than one place"),
        (["seed=1,1"], "are the same run"),
        (["generator_lr=1e-3,0.001"], "are the same run"),
        (["log_every_steps=10,20"], "are the same run"),
        (["max_steps=100,200"], "would both be called digits-2d-seed0-44136fa3"),
        (["epochs=1,2"], "Set AAE_RUN_NAME"),
    ],
)
def test_axes_that_make_no_sweep_are_refused(axes: list[str], words: str) -> None:
    """One clear error, with the value and what to do."""
    with pytest.raises(UsageError) as refused:
        _asked(*(word for axis in axes for word in ("--sweep", axis)))
    assert words in str(refused.value)


def test_all_mistakes_of_all_elements_are_told_at_once() -> None:
    """Of the values, of the base, of unknown flags; each once."""
    with pytest.raises(SettingsError) as refused:
        _asked("--sweep", "latent_dim=1,2,x", "--sweep", "seed=0..50", "--batch-size", "0", "--bogus", "1")
    assert len(refused.value.mistakes) == 4
    for words in ("AAE_LATENT_DIM=1 ", "AAE_LATENT_DIM=x ", "AAE_BATCH_SIZE=0 ", "--bogus is not a flag"):
        assert words in str(refused.value)


def test_names_that_are_too_long_are_refused() -> None:
    """An element's name is held to what a run's may be."""
    with pytest.raises(SettingsError, match="must be 1 to 120 of the characters"):
        _asked("--sweep", "seed=1,123456789", "--run-name", "x" * 105)
    assert len(_runs_of("--sweep", "max_steps=100,200", "--run-name", "x")) == 2


def test_an_element_with_other_settings_refuses_the_sweep_whole() -> None:
    """Each element and each difference is named, and nothing is written."""
    sweep_dir = _make(_asked("--sweep", "seed=0..2", "--run-name", "s"))
    before = sweep_dir.file.read_bytes()
    with pytest.raises(UsageError) as refused:
        plan_sweep(_asked("--sweep", "seed=0..2", "--run-name", "s", "--batch-size", "50"))
    assert [f"seed={seed}: " in str(refused.value) for seed in range(3)] == [True] * 3
    assert "AAE_BATCH_SIZE is 100 in settings.json, now 50" in str(refused.value)
    assert sweep_dir.file.read_bytes() == before


def test_a_sweep_may_be_added_to_and_nothing_else() -> None:
    """Elements keep their indices, by which arrays know them; none may be left out."""
    _make(_asked("--sweep", "seed=2..3", "--run-name", "s"))
    _, sweep, _ = plan_sweep(_asked("--sweep", "seed=0..4", "--run-name", "s"))
    assert [element.values["seed"] for element in sweep.elements] == [2, 3, 0, 1, 4]
    assert [element.index for element in sweep.elements] == [0, 1, 2, 3, 4]
    assert sweep.arrays[0].indices == [0, 1]
    for other in (["seed=0..2"], ["seed=2..3", "latent_dim=2,3"]):
        with pytest.raises(UsageError, match="Values may be added, none left out"):
            plan_sweep(_asked(*(word for axis in other for word in ("--sweep", axis)), "--run-name", "s"))


def test_a_name_is_a_runs_or_a_sweeps() -> None:
    """Neither takes the other's."""
    asked = _asked("--sweep", "seed=0..1", "--run-name", "s")
    _make(asked)
    with pytest.raises(UsageError, match="s is the name of a sweep"):
        submit(["--run-name", "s", "--dry-run"])
    with pytest.raises(UsageError, match=r"is a run, so no sweep may be called s--seed=0"):
        plan_sweep(_asked("--sweep", "latent_dim=2,3", "--run-name", "s--seed=0"))


def test_a_sweeps_name_stands_for_its_runs() -> None:
    """Where several make sense; where one does, an error names one of them."""
    sweep_dir = _make(_asked("--sweep", "seed=0..2", "--run-name", "s"))
    for name in ("s", str(sweep_dir.runs_dir / "s")):
        found = find_runs(name)
        assert (found.sweep, [run_dir.path.name for run_dir in found.runs]) == ("s", [f"s--seed={n}" for n in range(3)])
    with pytest.raises(UsageError, match=r"'s' is a sweep of 3 runs; name one of them, such as s--seed=0"):
        find_run("s")
    with pytest.raises(UsageError, match="no run 'none'"):
        find_runs("none")


def test_status_folds_a_sweep_into_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """How many are in which state, also those whose folder is gone; `--runs` unfolds, `--json` is always the runs."""
    asked = _asked("--sweep", "seed=0..3", "--run-name", "s")
    sweep_dir = _make(asked, state="finished")
    failed = sweep_dir.run_dir("s--seed=1")
    write_status(failed, Status(state="failed", total_steps=10, step=5))
    write_status(
        sweep_dir.run_dir("s--seed=2"), Status(state="finished", saturation="saturated", total_steps=10, step=10)
    )
    sweep_dir.run_dir("s--seed=3").path.rename(sweep_dir.runs_dir / "away")
    assert status(["s"]) == 1
    _, line, *below = capsys.readouterr().out.splitlines()
    assert line.split("  ") == ["sweep", " 50%", "2 finished, 1 failed, 1 not there; 1 saturated", "s"]
    assert "  s--seed=1 needs you: failed" in below
    assert any(command.startswith("    aae-slurm submit --run-name s--seed=1 ") for command in below)
    assert status([]) == 1
    assert _names(capsys) == ["s", "away"]
    assert status(["s", "--runs"]) == 1
    assert _names(capsys) == [f"s--seed={n}" for n in range(3)]
    assert status(["s", "--json"]) == 1
    assert capsys.readouterr().out.count('"sweep": "s"') == 3


def _names(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is shown, below the header."""
    return [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]]


def test_a_job_of_an_array_is_its_runs() -> None:
    """By its script's folder, the array's id and its task; an array that is not known is the entry without an id."""
    asked = _asked("--sweep", "seed=0..3", "--run-name", "s")
    sweep_dir = _make(asked)
    sweep = sweep_dir.read()
    assert sweep is not None
    newest = Array(number=2, indices=[3, 1], submitted_at=now())
    sweep_dir.write(sweep.model_copy(update={"arrays": [*sweep.arrays, newest]}))
    script = str(sweep_dir.slurm / "7_submission.sh")

    def run_of(job_id: str) -> str | None:
        path = Job(job_id, job_id, "0", "PENDING", "", script).run
        return Path(path).name if path is not None else None

    assert [run_of(job_id) for job_id in ("7_0", "7_3", "9_0", "9_1")] == [f"s--seed={n}" for n in (0, 3, 3, 1)]
    assert [run_of(job_id) for job_id in ("7_4", "9_2", "7", "7_x")] == [None] * 4
    assert run_of_script(str(sweep_dir.runs_dir / "a" / "slurm" / "7_submission.sh"), "7") == str(
        sweep_dir.runs_dir / "a"
    )
    assert run_of_script("/somewhere/else.sh", "7") is None
    assert Sweeps(sweep_dir.runs_dir).last_job("s--seed=1") == "7_1"
    assert sweep_dir.element(2, 1).path.name == "s--seed=1"
    with pytest.raises(UsageError, match="names no run for task 2 of array 2"):
        sweep_dir.element(2, 2)


def test_a_damaged_sweep_is_nobodys_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It stands in no other run's way; its runs are shown one by one, with a note."""
    sweep_dir = _make(_asked("--sweep", "seed=0..1", "--run-name", "s"))
    sweep_dir.file.write_bytes(b"\0" * 100)
    assert Job("7_0", "7", "0", "PENDING", "", str(sweep_dir.slurm / "7_submission.sh")).run is None
    assert Sweeps(sweep_dir.runs_dir).all == {}
    assert status([]) == 0
    told = capsys.readouterr()
    assert [line.split()[-1] for line in told.out.splitlines()[1:]] == ["s--seed=0", "s--seed=1"]
    assert "sweep.json is damaged" in told.err
    with pytest.raises(UsageError, match=r"sweep.json is damaged.*restore it"):
        find_runs("s")
    with pytest.raises(UsageError, match=r"sweep.json is damaged.*restore it"):
        plan_sweep(_asked("--sweep", "seed=0..1", "--run-name", "s"))


def test_local_sweeps_are_refused_with_the_loop_to_type() -> None:
    """A line that a shell takes, with the flags that were given."""
    flags = _flags("--sweep", "seed=0..2", "--sweep", "latent_dim=2,8", "--hidden-dim", "16", "--run-name", "s")
    assert loop_to_type(read_axes(flags.options.sweep), flags) == (
        "for seed in 0 1 2; do for latent_dim in 2 8; do aae-job --hidden-dim 16 --seed $seed --latent-dim $latent_dim "
        "--run-name s--seed=$seed--latent_dim=$latent_dim; done; done"
    )
    together = _flags("--sweep", "latent_dim,prior_std=2:1,8:5")
    assert loop_to_type(read_axes(together.options.sweep), together) == (
        "aae-job --latent-dim 2 --prior-std 1; aae-job --latent-dim 8 --prior-std 5"
    )
    with pytest.raises(UsageError, match="for seed in 0 1; do aae-job --seed"):
        submit(["--local", "--sweep", "seed=0..1"])
    with pytest.raises(UsageError, match="add --sweep"):
        submit(["--parallel", "2"])


def test_arrays_are_as_long_as_the_cluster_lets_them_be() -> None:
    """The greatest index stays below MaxArraySize; a cluster without arrays is told."""
    assert chunks(list(range(7)), 4) == [[0, 1, 2, 3], [4, 5, 6]]
    assert chunks([], 4) == []
    with pytest.raises(AaeError, match="MaxArraySize=0"):
        chunks([1], 0)


def test_sweep_json_is_as_the_contract_has_it() -> None:
    """Programs read it."""
    stored = _make(_asked("--sweep", "seed=0..1", "--run-name", "s")).read()
    assert isinstance(stored, Sweep)
    dumped = stored.model_dump()
    assert list(dumped) == ["format", "name", "axes", "base", "elements", "arrays"]
    assert list(dumped["elements"][0]) == ["index", "run", "values"]
    assert {"number", "job_id", "indices", "submitted_at"} <= set(dumped["arrays"][0])


def test_a_submitter_that_shows_life_keeps_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine, where nobody can look for its process; once it shows none, the mark is taken away."""
    monkeypatch.setattr("slurm.login.submitter.SUBMITTER_WAIT_S", 1.5)
    mark = tmp_path / "s" / ".submitting"
    mark.parent.mkdir()
    mark.write_text(Owner.this_process().model_copy(update={"host": "elsewhere"}).model_dump_json())
    ends = time.monotonic() + 3

    def show_life() -> None:
        while time.monotonic() < ends:
            os.utime(mark)
            time.sleep(0.05)

    other = threading.Thread(target=show_life)
    other.start()
    with only_submitter(mark.parent):
        taken = time.monotonic()
    other.join()
    assert ends < taken < ends + 5


def test_an_array_waits_for_those_before_it_and_for_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency of AAE_SLURM_EXTRA is added to, not lost."""
    asked = _asked("--sweep", "seed=0..1", "--run-name", "s", "--slurm-extra", '{"dependency": "afterok:1"}')
    sweep_dir = SweepDir.named(asked.runs_dir, "s")
    array = Array(number=1, indices=[0, 1], parallel=1, submitted_at=now())
    allocation = next(iter(asked.runs.values())).allocation
    for after, words in ((("3", "4"), "afterok:1,afterany:3:4"), ((), "afterok:1")):
        script = script_text(Order.of_array(sweep_dir, array, [], allocation, after), allocation)
        assert f"#SBATCH --dependency={words}\n" in script
        assert "#SBATCH --array=0-1%1\n" in script
