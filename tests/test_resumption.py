"""The command that goes on with a run: typed as it stands, in whatever shell, it finds the same run and changes nothing of it."""

import shlex
from pathlib import Path

import pytest

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.config.settings_file import Record
from job.config.sources import read_configuration
from job.rundir.claim import Segment
from job.rundir.directory import RunDir
from job.rundir.liveness import Owner
from job.segment.plan import plan_start
from slurm.login.resumption import command_to_go_on

ODD = {
    "AAE_SEED": "7",
    "AAE_MAX_STEPS": "5",
    "AAE_SLURM_TIME": "1:00:00",
    "AAE_RECIPE": "paper",
    "AAE_RUN_NAME": "other",
}


@pytest.mark.parametrize("shell", [{}, ODD])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"seed": "3", "max_steps": "500", "device": "cpu"},
        {"run_name": "night--seed=0", "generator_lr": "1e-3", "epochs": "2"},
        {"recipe": "tuned", "hidden_dim": "32", "deterministic": "false"},
        {"num_threads": "1", "evaluate_every_steps": "50", "checkpoint_every_steps": "none"},
        {"slurm_time": "2-0", "slurm_gpus": "0", "slurm_mem": "none", "slurm_partition": "it's $HOME",
         "slurm_setup": '["module load x", "export A=\\"b c\\""]', "slurm_extra": '{"nice": 100, "exclusive": true}'},
    ],
)  # fmt: skip
def test_the_command_finds_the_same_run(
    flags: dict[str, str], shell: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same settings and the same allocation, also where the shell has others in its environment."""
    configuration = read_configuration({"runs_dir": str(tmp_path / "the runs"), **flags}, environment={})
    run_dir = RunDir(configuration.settings.run_dir)
    run_dir.path.mkdir(parents=True)
    record = Record.of(configuration)
    record.write(run_dir)
    run_dir.slurm.mkdir()
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    command = command_to_go_on(run_dir, record, "12")
    assert command is not None
    program, name, *words = shlex.split(command)
    assert (program, name) == ("aae-slurm", "submit")
    parser = Parser("aae-slurm submit", "", "")
    add_settings(parser)
    plan = plan_start(read_configuration_from(parser, words)[1])
    assert (plan.run_dir.path, plan.is_new) == (run_dir.path, False)
    changed = {name for name, value in plan.record.settings.items() if value != record.settings[name]}
    assert changed <= {"data_dir"}
    assert plan.record.slurm == record.slurm
    if not shell:
        assert ("--run-name" in words) == ("run_name" in flags)
        assert "--slurm-cpus-per-task" not in words


def test_the_command_is_for_any_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cron job mails is typed where another AAE_RUNS_DIR is set, or none."""
    monkeypatch.setenv("AAE_RUNS_DIR", str(tmp_path))
    configuration = read_configuration({"seed": "3"})
    run_dir = RunDir(configuration.settings.run_dir)
    (run_dir.path / "slurm").mkdir(parents=True)
    command = command_to_go_on(run_dir, Record.of(configuration), "12")
    assert command == f"aae-slurm submit --runs-dir {tmp_path} --seed 3"


def test_a_run_goes_on_as_it_was_started(tmp_path: Path) -> None:
    """By hand, by the local executor, or by a batch script of one's own, of an array only its element."""
    record = Record.of(read_configuration({"runs_dir": str(tmp_path), "seed": "3", "slurm_time": "60"}, environment={}))
    run_dir = RunDir(tmp_path / str(record.settings["run_name"]))
    run_dir.path.mkdir()

    def command(job_id: str | None, script: Path | None = None) -> str:
        owner = Owner.this_process(job_id, job_script=str(script) if script is not None else None)
        run_dir.replace(run_dir.claim_file(1), Segment(owner=owner).model_dump_json().encode())
        return command_to_go_on(run_dir, record, job_id) or ""

    flags = f"--runs-dir {tmp_path} --seed 3"
    assert command(None) == f"aae-job {flags}"
    assert command("local-5") == f"aae-slurm submit --local {flags} --slurm-time 60"
    assert command("12", run_dir.slurm / "x.sh") == f"aae-slurm submit {flags} --slurm-time 60"
    script = tmp_path / "my job.sh"
    script.touch()
    assert command("12", script) == f"sbatch '{script}'"
    assert command("12_4", script) == f"sbatch --array=4 '{script}'"
    script.unlink()
    assert command("12", script) == f"aae-slurm submit {flags} --slurm-time 60"
