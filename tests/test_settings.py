"""Settings: where they come from, what is refused, and which of them make a run."""

import os
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from job.config.allocation import Allocation
from job.config.settings import FREE, TOTAL, Settings
from job.config.settings_file import Record
from job.config.sources import FIELDS, Configuration, read_configuration
from job.errors import SettingsError, UsageError
from job.machine import allotted_cpus, versions
from job.rundir.directory import RunDir
from job.segment.plan import plan_start
from job.training.device import choose_device, unused_gpu


def test_a_flag_wins_over_the_environment_over_the_env_file_over_the_default(tmp_path: Path) -> None:
    """Each setting comes from the highest layer that names it, and its source is recorded."""
    env_file = tmp_path / "a b.env"
    env_file.write_text("# a comment\nAAE_SEED=1\nAAE_EPOCHS=2\nexport AAE_BATCH_SIZE='3'\nOTHER=x\n")
    configuration = read_configuration({"seed": "5"}, env_file, {"AAE_SEED": "4", "AAE_EPOCHS": "6", "AAE_DEVICE": ""})
    settings, sources = configuration.settings, configuration.sources
    assert (settings.seed, settings.epochs, settings.batch_size, settings.device) == (5, 6, 3, "auto")
    named = {name: source for name, source in sources.items() if source != "default"}
    assert named == {"seed": "flag", "epochs": "environment", "batch_size": "env-file"}
    assert set(sources) == set(FIELDS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"AAE_SEED: 3", "'AAE_SEED: 3' is no assignment"),
        (b"AAE_SEED 3", "'AAE_SEED 3' is no assignment"),
        (b"AAE_SEED", "'AAE_SEED' is no assignment"),
        (b"=3", "'=3' is no assignment"),
        (b"AAE-SEED=3", "did you mean AAE_SEED?"),
        (b"aae.seed=3", "did you mean AAE_SEED?"),
        (b"SEED=3", "did you mean AAE_SEED?"),
        (b"seed=3", "did you mean AAE_SEED?"),
        (b"export AEE_SEED=3", "did you mean AAE_SEED?"),
        (b"AE_LATENT_DIM=3", "did you mean AAE_LATENT_DIM?"),
        ("# 3 \u00e9pochs".encode("latin-1"), "'# 3 \\\\xe9pochs' is not UTF-8"),
    ],
)
def test_a_line_of_an_env_file_that_would_change_nothing_is_refused(line: bytes, told: str, tmp_path: Path) -> None:
    """With its number and what it says; nobody trains with seed 0 who has written 3."""
    env_file = tmp_path / "x.env"
    env_file.write_bytes(b"# seeds\n\nOTHER=x\n\n" + line + b"\nAAE_EPOCHS=2\n")
    with pytest.raises(SettingsError) as caught:
        read_configuration(env_file=env_file, environment={})
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"--env-file {env_file}, line 5: ")
    assert told in mistake


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_env_file_with_a_byte_order_mark_or_foreign_line_ends_is_read(
    encoding: str, end: str, tmp_path: Path
) -> None:
    """As editors elsewhere write it."""
    env_file = tmp_path / "x.env"
    env_file.write_bytes(f"AAE_SEED=3{end}# \u00e9{end}AAE_RUN_NAME='a'{end}".encode(encoding))
    settings = read_configuration(env_file=env_file, environment={}).settings
    assert (settings.seed, settings.run_name) == (3, "a")


def test_an_env_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """It is not there, is a folder, or is UTF-16."""
    (tmp_path / "utf16").write_bytes("AAE_SEED=3".encode("utf-16"))
    for name, told in (("none", "no such file"), (".", "is a directory"), ("utf16", "is UTF-16")):
        with pytest.raises(SettingsError, match=told):
            read_configuration(env_file=tmp_path / name, environment={})


def test_no_env_file_is_read_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` in the working directory changes nothing."""
    (tmp_path / ".env").write_text("AAE_SEED=77\n")
    monkeypatch.chdir(tmp_path)
    assert read_configuration(environment={}).settings.seed == 0


def test_every_mistake_is_told_with_name_value_place_and_what_is_allowed(tmp_path: Path) -> None:
    """Mistakes of all layers come in one error; unknown names come with the nearest real one."""
    env_file = tmp_path / "x.env"
    env_file.write_text("AAE_LATENTDIM=3\nAAE_PRIOR_STD=-1\n")
    with pytest.raises(SettingsError) as caught:
        read_configuration(
            {"seed": "x"}, env_file, {"AAE_KEEP_CHECKPOINTS": "1", "aae_epochs": "3", "AAE_ENCODER_LR": "nan"}
        )
    text = str(caught.value)
    assert len(caught.value.mistakes) == 6
    for part in (
        "AAE_LATENTDIM=3 (env-file): not a setting; did you mean AAE_LATENT_DIM?",
        "aae_epochs=3 (environment): not a setting; did you mean AAE_EPOCHS?",
        "AAE_PRIOR_STD=-1 (env-file): input should be greater than 0",
        "AAE_KEEP_CHECKPOINTS=1 (environment): input should be greater than or equal to 2",
        "AAE_ENCODER_LR=nan (environment): input should be",
        "AAE_SEED=x (--seed): input should be a valid integer",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "é", "x" * 121, ".."])
def test_names_that_would_not_survive_a_path_or_a_shell_are_refused(name: str) -> None:
    """Run names are plain; an empty one counts as not given."""
    if name == "":
        assert read_configuration(environment={"AAE_RUN_NAME": ""}).settings.run_name is None
        return
    with pytest.raises(SettingsError, match="AAE_RUN_NAME"):
        read_configuration(environment={"AAE_RUN_NAME": name})


@pytest.mark.parametrize("path", ["a%jb", "a\nb", "a\x07b"])
def test_paths_that_a_batch_script_cannot_carry_are_refused(path: str) -> None:
    """Slurm expands % and cannot carry control characters."""
    with pytest.raises(SettingsError, match="AAE_RUNS_DIR"):
        read_configuration(environment={"AAE_RUNS_DIR": path})


def test_a_batch_larger_than_the_data_set_is_refused() -> None:
    """Such an epoch would have no step at all."""
    with pytest.raises(SettingsError, match="AAE_BATCH_SIZE=10001: digits has only 10000"):
        read_configuration(environment={"AAE_BATCH_SIZE": "10001"})


def test_the_default_name_is_made_of_what_makes_the_run_and_of_no_time() -> None:
    """Names are pinned: a new version must find the runs of an old one. Free settings and the total do not enter."""
    assert Settings().name == "digits-2d-seed0-44136fa3"
    assert Settings(latent_dim=8, seed=3, prior_std=5).name == "digits-8d-seed3-22e00b60"
    same = Settings(runs_dir=Path("/x"), device="cpu", epochs=7, max_steps=3, log_every_steps=1, lattice_size=3)
    assert same.name == Settings().name
    assert Settings(hidden_dim=999).name != Settings().name
    assert Settings().runs_dir == Path.cwd() / "runs"


def test_every_setting_is_fixed_free_or_part_of_the_total() -> None:
    """The two lists name real settings; whatever is in neither is fixed, so nothing new is free by accident."""
    assert set(Settings.model_fields) > FREE | TOTAL
    assert set(Settings().fixed) == {
        *("dataset", "latent_dim", "hidden_dim", "prior_std", "batch_size", "seed", "precision", "deterministic"),
        *("encoder_lr", "decoder_lr", "generator_lr", "discriminator_lr"),
        *("lr_schedule", "autoencoder_dropout", "discriminator_dropout", "code_noise", "r1_penalty"),
        *("ema_decay", "generator_eps"),
    }


OTHER_VALUES: dict[str, object] = {
    "runs_dir": None,
    "run_name": None,
    "data_dir": "/elsewhere",
    "device": "cpu",
    "num_threads": 7,
    "step_limit_s": 5.0,
    "on_end": 'echo "it\'s\n$AAE_STATE"',
    "cuda_graph": False,
    "log_every_steps": 3,
    "checkpoint_every_s": 9,
    "checkpoint_every_steps": 4,
    "keep_checkpoints": 9,
    "lattice_every_steps": 5,
    "lattice_size": 6,
    "lattice_extent": 2.5,
    "lattice_mode": "quantile",
    "recipe": "tuned",
    "evaluate_every_steps": 50,
    "stop_when_saturated": True,
    "saturation_windows": 9,
    "saturation_confirmations": 4,
    "saturation_slope_percent": 0.4,
    "saturation_trend_p": 0.02,
    "saturation_loss_band": 0.02,
    "saturation_output_band": 0.04,
    "saturation_energy": 0.004,
    "saturation_c2st": 0.54,
    "saturation_winning": 0.7,
    "saturation_collapse": 0.2,
    "epochs": 31,
    "max_steps": 5000,
    "dataset": "mnist",
    "latent_dim": 3,
    "hidden_dim": 10,
    "prior_std": 2.0,
    "batch_size": 10,
    "seed": 1,
    "precision": "bfloat16",
    "deterministic": False,
    "encoder_lr": 1e-3,
    "decoder_lr": 1e-3,
    "generator_lr": 1e-3,
    "discriminator_lr": 1e-3,
    "lr_schedule": "cosine",
    "generator_eps": 1e-4,
    "code_noise": 0.2,
    "r1_penalty": 0.5,
    "autoencoder_dropout": 0.1,
    "discriminator_dropout": 0.1,
    "ema_decay": 0.99,
}


def _configuration(settings: Settings) -> Configuration:
    return Configuration(settings, Allocation(), dict.fromkeys(FIELDS, "environment"))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_on_resume_fixed_settings_are_refused_and_free_ones_taken(name: str, tmp_path: Path) -> None:
    """Each setting, changed on an existing run: refused with old and new value, or taken and written down."""
    run_dir = RunDir(tmp_path / "r")
    run_dir.path.mkdir()
    settings = Settings(runs_dir=tmp_path, run_name="r")
    Record.of(_configuration(settings)).write(run_dir)
    assert not plan_start(_configuration(settings)).is_changed
    value = OTHER_VALUES[name]
    if value is None:
        return  # where a run lies is not a property of it: a run may be moved
    other = Settings(**{**settings.model_dump(), name: value})
    if name in FREE | TOTAL:
        plan = plan_start(_configuration(other))
        assert plan.is_changed
        assert plan.record.settings[name] == other.model_dump(mode="json")[name]
        assert getattr(plan.settings, name) == getattr(other, name)
    else:
        with pytest.raises(UsageError, match=f"AAE_{name.upper()} is {getattr(settings, name)} in settings.json, now"):
            plan_start(_configuration(other))


def test_the_number_of_threads_is_kept_once_it_is_known(tmp_path: Path) -> None:
    """A resume without AAE_NUM_THREADS takes the first start's number, not that of the node it landed on."""
    run_dir = RunDir(tmp_path / "r")
    run_dir.path.mkdir()
    settings = Settings(runs_dir=tmp_path, run_name="r")
    Record.of(_configuration(settings.model_copy(update={"num_threads": 3}))).write(run_dir)
    plan = plan_start(_configuration(settings))
    assert (plan.settings.num_threads, plan.is_changed) == (3, False)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """Somebody's files are not mixed with a run's."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="no run directory"):
        plan_start(read_configuration(environment={"AAE_RUN_NAME": "r", "AAE_RUNS_DIR": str(tmp_path)}))


def test_a_start_that_got_no_further_than_its_claim_is_no_stranger(tmp_path: Path) -> None:
    """The disk refused its first files: the same command starts there again."""
    run_dir = RunDir(tmp_path / "r")
    run_dir.claim_file(1).parent.mkdir(parents=True)
    run_dir.claim_file(1).write_text("")
    run_dir.status_file.write_text("")
    assert plan_start(read_configuration(environment={"AAE_RUN_NAME": "r", "AAE_RUNS_DIR": str(tmp_path)})).is_changed


def test_the_allotted_cpus_are_the_least_that_anyone_grants() -> None:
    """Slurm's number counts when it is smaller than the affinity, and CPUS_PER_TASK goes before CPUS_ON_NODE."""
    here = len(os.sched_getaffinity(0))
    assert 1 <= allotted_cpus({}) <= here
    assert allotted_cpus({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "64"}) == 1
    assert allotted_cpus({"SLURM_CPUS_ON_NODE": "1"}) == 1
    assert allotted_cpus({"SLURM_CPUS_ON_NODE": "4096"}) == allotted_cpus({})


def test_an_allocation_with_a_gpu_that_torch_does_not_see_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days on a CPU by accident are worse than an error; AAE_DEVICE=cpu says that it is meant."""
    import torch

    from job.errors import HopelessError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    allocation = {"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "0"}
    with pytest.raises(HopelessError, match=r"names GPU 0.*AAE_DEVICE=cpu"):
        choose_device("auto", allocation)
    with pytest.raises(HopelessError, match="AAE_DEVICE=cuda asks"):
        choose_device("cuda", {})
    assert choose_device("cpu", allocation).type == "cpu"
    assert choose_device("auto", {"SLURM_JOB_ID": "7"}).type == "cpu"
    assert choose_device("auto", {"CUDA_VISIBLE_DEVICES": "0"}).type == "cpu"


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ({}, "cpu"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "cpu"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "cpu"),
        ({"SLURM_GPUS_ON_NODE": "0"}, "cpu"),
        ({"SLURM_JOB_GPUS": "0"}, "cuda"),
        ({"SLURM_STEP_GPUS": "1", "CUDA_VISIBLE_DEVICES": "MIG-GPU-5c89/1/0"}, "cuda"),
        ({"SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "GPU-5c89"}, "cuda"),
        ({"SLURM_SHARDS_ON_NODE": "1"}, "cuda"),
    ],
)
def test_in_an_allocation_auto_means_what_slurm_gave(
    given: dict[str, str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that torch sees besides may be another's; on a cluster that hands out none, the user is told what to set."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    allocation = {"SLURM_JOB_ID": "7", **given}
    assert choose_device("auto", allocation).type == device
    warning = unused_gpu("auto", allocation)
    assert ("AAE_DEVICE=cuda" in (warning or "")) == (device == "cpu")
    assert choose_device("auto", {}).type == "cuda"
    assert (unused_gpu("auto", {}), unused_gpu("cpu", allocation)) == (None, None)


def test_versions_are_those_that_the_process_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an installation is replaced, its version is another or cannot be read, and a checkpoint asks for it."""
    began_with = versions()

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", gone)
    assert versions() == began_with


@pytest.mark.parametrize(
    ("extra", "settings", "words"),
    [
        ('{"requeue": false}', {}, "--requeue is what a run depends on"),
        ('{"no_requeue": true}', {}, "--no-requeue is"),
        ('{"arr": "1-3"}', {}, "--array is"),
        ('{"W": true}', {}, "--W is"),
        ('{"output": "x"}', {}, "--output is"),
        ('{"comment": "a\\nscancel 5"}', {}, "newlines"),
        ('{"a\\nb": 1}', {}, "not the name of an option"),
        ('{"--nice": 1}', {}, "without the dashes"),
        ('{"cpus_per_task": 8}', {}, "AAE_SLURM_CPUS_PER_TASK"),
        ('{"c": 8}', {}, "AAE_SLURM_CPUS_PER_TASK"),
        ('{"tim": "5"}', {}, "AAE_SLURM_TIME"),
        ('{"mem-per-cpu": "2G"}', {}, "AAE_SLURM_MEM"),
        ('{"mem": false}', {}, "AAE_SLURM_MEM"),
        ('{"gres": "gpu:1"}', {}, "AAE_SLURM_GPUS"),
        ('{"mail-type": "END", "mail_type": "ALL"}', {}, "is there twice"),
        ('{"gres": "shard:1"}', {"AAE_SLURM_GPUS": "0"}, None),
        ('{"mem-per-cpu": "2G"}', {"AAE_SLURM_MEM": "none"}, None),
        ('{"cpus-per-gpu": 4}', {"AAE_SLURM_CPUS_PER_TASK": "none"}, None),
        ('{"nice": false, "hold": true, "nodelist": "n1", "exclusive": true}', {}, None),
    ],
)
def test_sbatch_options_beside_the_settings_change_nothing_that_a_run_lives_by(
    extra: str, settings: dict[str, str], words: str | None
) -> None:
    """In any spelling; what stands for a setting that is off is allowed, and so is leaving out what nobody sends."""
    environment = {"AAE_SLURM_EXTRA": extra, **settings}
    if words is None:
        assert read_configuration(environment=environment).allocation.extra
        return
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_configuration(environment=environment)


@pytest.mark.parametrize(
    ("gpus", "ok"), [("a100:1", True), ("1g.5gb:2", True), ("nvidia_a100_1g.5gb:1", True), ("x", False), ("-1", False)]
)
def test_gpus_are_asked_for_by_number_or_type(gpus: str, ok: bool) -> None:
    """As sbatch takes them."""
    if ok:
        assert read_configuration(environment={"AAE_SLURM_GPUS": gpus}).allocation.gpus == gpus
    else:
        with pytest.raises(SettingsError, match="AAE_SLURM_GPUS"):
            read_configuration(environment={"AAE_SLURM_GPUS": gpus})


def test_none_in_the_environment_is_as_in_a_flag() -> None:
    """For what may be none."""
    environment = {"AAE_MAX_STEPS": "none", "AAE_SLURM_MEM": "none", "AAE_SLURM_CPUS_PER_TASK": "none"}
    configuration = read_configuration(environment=environment)
    allocation = configuration.allocation
    assert (configuration.settings.max_steps, allocation.mem, allocation.cpus_per_task) == (None, None, None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"AAE_SLURM_MAX_MEM": "8G"}, None),
        ({"AAE_SLURM_MAX_MEM": "8G", "AAE_SLURM_MEM": "none"}, "needs a value of AAE_SLURM_MEM"),
        ({"AAE_SLURM_MAX_MEM": "2G"}, "must not be less than AAE_SLURM_MEM=4G"),
        ({"AAE_SLURM_MAX_MEM": "much"}, "memory as sbatch writes it"),
    ],
)
def test_memory_may_grow_from_what_is_asked_for(settings: dict[str, str], words: str | None) -> None:
    """Up to a limit of at least that."""
    if words is None:
        assert read_configuration(environment=settings).allocation.max_mem == "8G"
        return
    with pytest.raises(SettingsError, match=words):
        read_configuration(environment=settings)


def test_a_graph_is_chosen_by_a_word() -> None:
    """auto, true or false, in the ways in which switches are written; another word is one mistake."""

    def read(value: str) -> object:
        return read_configuration(environment={"AAE_CUDA_GRAPH": value}).settings.cuda_graph

    assert [read(value) for value in ("auto", "AUTO", "true", "1", "False", "no")] == [
        "auto",
        "auto",
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(SettingsError, match="1 mistake in the settings"):
        read("perhaps")
    assert Settings().cuda_graph == "auto"
    recorded = Settings(cuda_graph=True).model_dump(mode="json")
    assert Settings(**recorded).cuda_graph is True
