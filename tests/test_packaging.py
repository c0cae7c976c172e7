"""What is tested is the installed package, with all that it needs inside."""

import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

import job
from job.__main__ import main as job_main
from job.commands import COMMANDS as JOB_COMMANDS
from job.data.datasets import NUM_TRAINING_IMAGES
from slurm.__main__ import main as slurm_main
from slurm.login import COMMANDS as SLURM_COMMANDS


def test_the_tests_run_against_the_installed_wheel() -> None:
    """Not against the source tree, where a file that the wheel lacks would not be missed."""
    if (distribution("aae-job").read_text("direct_url.json") or "").find('"editable": true') >= 0:
        pytest.skip("an editable install: a developer's; tests/run tests the wheel")
    assert "site-packages" in Path(job.__file__).parts


@pytest.mark.parametrize("package", ["aae", "job", "slurm"])
def test_every_package_is_typed(package: str) -> None:
    """py.typed tells type checkers of other projects."""
    assert files(package).joinpath("py.typed").is_file()


def test_the_embedded_digits_are_whole_with_their_notice() -> None:
    """12,000 digits with labels, 10,000 of them for training, and where they come from."""
    import numpy as np

    with files("job.data").joinpath("digits", "digits.npz").open("rb") as file, np.load(file) as arrays:
        assert arrays["images"].shape == (12_000, 28, 28)
        assert arrays["labels"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST's well-known beginning
        assert sorted(set(arrays["labels"].tolist())) == list(range(10))
    assert NUM_TRAINING_IMAGES["digits"] == 10_000
    assert "LeCun" in files("job.data").joinpath("digits", "NOTICE").read_text()


COMMANDS = [
    ("aae-job", ""),
    *(("aae-job", c) for c in JOB_COMMANDS),
    *(("aae-slurm", c) for c in ("", *SLURM_COMMANDS)),
]


@pytest.mark.parametrize(("prog", "command"), COMMANDS)
def test_every_command_has_help_with_an_example(prog: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help shows what to type."""
    main = {"aae-job": job_main, "aae-slurm": slurm_main}[prog]
    with pytest.raises(SystemExit) as ended:
        main([*([command] if command else []), "--help"])
    assert ended.value.code == 0
    example = capsys.readouterr().out.partition("example:\n  ")[2].splitlines()[0]
    assert f"{prog} {command}".strip() in example


@pytest.mark.process
@pytest.mark.parametrize(("script", "module"), [("aae-job", "job"), ("aae-slurm", "slurm")])
def test_console_scripts_are_the_modules(script: str, module: str) -> None:
    """Both ways to type a command say the same."""
    ways = [[str(Path(sys.executable).with_name(script))], [sys.executable, "-P", "-m", module]]
    one, other = (subprocess.run([*way, "--help"], capture_output=True, text=True, check=True).stdout for way in ways)
    assert one == other
