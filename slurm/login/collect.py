"""`aae-slurm collect`: what one keeps of runs, in folders that stand by themselves, and a page to look at it."""

import os
import sys
from pathlib import Path

from job.commandline import Parser, path
from job.errors import AaeError, UsageError
from job.output import told_if_slow
from job.rundir.directory import RunDir
from job.rundir.find import find_runs, run_around
from job.rundir.small_file import is_folder
from slurm.login.clusters import Queues
from slurm.login.keeping.run import collect_run
from slurm.scheduler.queue import SQUEUE_TIMEOUT_S


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm collect",
        "Keeps of each run in OUT/<run>/: weights, lattices with an animation and a sheet of them, curves, tables,\n"
        "settings, report.html to look at it all, and SHA256SUMS for `sha256sum -c`; of several runs also OUT/comparison.html\n"
        "and OUT/comparison.csv. Again: what has changed since. Nothing that it has not put there is touched.\n"
        "Exit code 0: all of it; 1: something could not be kept, which is told; 2: no such run, or no such OUT.",
        "aae-slurm collect digits-2d-seed0-44136fa3 results",
    )
    parser.add_argument(
        "runs", nargs="+", type=find_runs, metavar="RUN", help="paths or names of runs, or names of sweeps"
    )
    parser.add_argument("out", type=path, metavar="OUT", help="folder to copy to; made if it is not there")
    options = parser.parse_args(arguments)
    run_dirs = {os.path.realpath(run_dir.path): run_dir for found in options.runs for run_dir in found.runs}
    _check(list(run_dirs.values()), options.out)
    collected = []
    problems: list[str] = []
    queues = Queues(SQUEUE_TIMEOUT_S)
    for run_dir in run_dirs.values():
        try:
            with told_if_slow(f"{run_dir.path.name}: reading its log and its lattices"):
                one = collect_run(run_dir, options.out, queues)
        except (OSError, AaeError) as error:
            problems.append(f"{run_dir.path.name} cannot be kept whole in {options.out}: {error}")
            print(f"aae-slurm: {problems[-1]}", file=sys.stderr)
            continue
        print(one.words)
        collected.append(one)
        problems += _tell(one.problems, run_dir.path.name)
    if len(run_dirs) > 1 and collected:
        from slurm.login.report.comparison_page import write_comparison

        words, found = write_comparison(collected, options.out)
        print(words, end="")
        problems += _tell(found, "comparison")
    return 1 if problems else 0


def _tell(problems: list[str], of: str) -> list[str]:
    for problem in problems:
        print(f"aae-slurm: {of}: {problem}", file=sys.stderr)
    return problems


def _check(run_dirs: list[RunDir], out: Path) -> None:
    """Raise UsageError where runs cannot be collected into this folder."""
    if os.path.lexists(out) and not is_folder(out):
        raise UsageError(f"OUT is {out}, which is no folder, or a link to one that is not there; give a folder")
    names = [run_dir.path.name for run_dir in run_dirs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two runs are called {twice[0]}; collect them one by one, each into a folder of its own")
    for name in names:
        if (run := run_around(out / name)) is not None:
            raise UsageError(
                f"OUT is {out}, which would write into the run {run}; what comes last is the folder to copy to"
            )
