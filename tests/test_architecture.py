"""The house: its wings, the arrows between them, and what each may load."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up. Each imports from itself and from what stands above it here, never from what stands below; and beside
# it stands what of the heavy libraries its files may name.
WINGS: dict[str, set[str]] = {
    "aae": {"torch"},
    "job.errors": set(),
    "job.loading": set(),
    "job.output": set(),
    "job.machine": set(),
    "job.rundir": set(),
    "job.log": set(),
    "job.checkpoints": {"torch"},
    "job.data": {"torch", "torchvision"},
    "job.config": set(),
    "job.results": {"torch", "matplotlib"},
    "job.evaluation": {"torch"},
    "job.training": {"torch"},
    "job.segment": set(),
    "job.proofs": {"torch", "torchvision", "matplotlib"},
    "job.commandline": set(),
    "job.commands": set(),
    "job.__main__": set(),
    "slurm.scheduler": set(),
    "slurm.findings": set(),
    "slurm.node": set(),
    "slurm.task": set(),
    "slurm.aftermath": set(),
    "slurm.login": set(),
    "slurm.__main__": set(),
}
HEAVY = set().union(*WINGS.values())
ORDER = list(WINGS)

# What is loaded before torch is, or where it never is: all of the wings that may not name it, and this.
LIGHT = {name for name, heavy in WINGS.items() if "torch" not in heavy} | {"job.data.datasets"}


def _modules() -> dict[str, Path]:
    files = [path for package in ("aae", "job", "slurm") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


MODULES = _modules()


def _wing(module: str) -> str:
    return max((wing for wing in WINGS if f"{module}.".startswith(f"{wing}.")), key=len, default="")


@cache
def _imports(module: str, *, at_load: bool = False) -> frozenset[str]:
    """The modules that one imports anywhere, or those that it imports when it is loaded itself."""
    tree = ast.parse(MODULES[module].read_text())
    names = set()
    for node in tree.body if at_load else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
    return frozenset(names)


def _loaded_with(module: str) -> set[str]:
    """All that is loaded when a module is, found without loading it."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        for name in _imports(ahead.pop(), at_load=True) - found:
            found.add(name)
            ahead += [name] if name in MODULES else []
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("module", [m for m in MODULES if _wing(m)])
def test_imports_point_up_the_list_of_wings(module: str) -> None:
    """What stands below in the list is not imported, anywhere in a file; nor is a heavy library that is not beside the wing."""
    wing = _wing(module)
    for name in _imports(module):
        if name in MODULES:
            assert ORDER.index(_wing(name)) <= ORDER.index(wing), f"{module} imports {name}"
        assert name.split(".")[0] not in HEAVY - WINGS[wing], f"{module} imports {name}"


def test_every_file_is_in_a_wing() -> None:
    """A new folder or file has to be given its place in the list."""
    assert [m for m in MODULES if not _wing(m)] == ["job", "slurm"]


def test_no_imports_go_round() -> None:
    """Not within a wing either."""
    TopologicalSorter({m: _imports(m) & MODULES.keys() for m in MODULES}).prepare()


def test_the_model_needs_torch_alone() -> None:
    """`aae` can be lifted out of this project with nothing but torch."""
    for module in MODULES:
        if _wing(module) == "aae":
            others = {name.split(".")[0] for name in _imports(module)} - sys.stdlib_module_names
            assert others <= {"aae", "torch"}, module


def test_what_plans_a_run_or_looks_at_one_loads_nothing_heavy() -> None:
    """Settings, run directory, claim, log and every command are there within moments; torch alone takes seconds."""
    light = [m for m in MODULES if _wing(m) in LIGHT or m in LIGHT]
    assert len(light) > 40
    assert {module: heavy for module in light if (heavy := _loaded_with(module) & HEAVY)} == {}


@pytest.mark.process
def test_a_process_that_loads_all_of_that_has_loaded_nothing_heavy() -> None:
    """As found by reading, so in truth, with all that other packages load."""
    light = [m for m in MODULES if _wing(m) in LIGHT or m in LIGHT]
    check = f"import sys, {', '.join(light)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", MODULES)
def test_rooms_are_small_and_named_for_what_they_hold(module: str) -> None:
    """No function over 60 lines; no room for odds and ends; a package's own file holds no code but the table of its commands."""
    text = MODULES[module].read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60]
    assert long == []
    assert not {"utils", "util", "helpers", "common", "misc"} & set(module.split("."))
    if MODULES[module].name == "__init__.py" and module not in ("job.commands", "slurm.login"):
        assert len(ast.parse(text).body) == 1, f"{module} holds more than its docstring"
