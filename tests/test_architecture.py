"""The arrows between the packages, and what the login node may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"aae": {"aae"}, "job": {"aae", "job"}, "slurm": {"aae", "job", "slurm"}}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dependencies_point_one_way(package: str) -> None:
    """aae <- job <- slurm, never back."""
    for path in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in _imports(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"


def test_the_model_needs_torch_alone() -> None:
    """`aae` can be lifted out of this project with nothing but torch."""
    for path in (ROOT / "aae").rglob("*.py"):
        others = {name.split(".")[0] for name in _imports(path)} - sys.stdlib_module_names
        assert others <= {"aae", "torch"}, path


def test_what_plans_a_run_loads_no_torch() -> None:
    """Settings, run directory, claim and log are usable on a login node, where torch takes seconds to load."""
    modules = "job.__main__, job.run, job.record, job.claim, job.eventlog, job.status"
    check = f"import sys, {modules}; assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
