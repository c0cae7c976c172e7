"""Faults of storage at random places, as many as `--size` says: looks that fail, quotas, lost pages."""

import random
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs import Job, small_settings, strace

from job.proofs.interruptions import lose_page
from job.proofs.verify import verify_run

pytestmark = [pytest.mark.process, pytest.mark.campaign, pytest.mark.timeout(0)]

LOOKING_CALLS = ("openat", "read", "newfstatat", "fstat", "getdents64", "lseek")
SETTINGS = {"max_steps": 60, "checkpoint_every_steps": 20, "lattice_every_steps": 30}


def _watched(job: Job) -> list[Path]:
    """What strace is to look at: all that the run has now and will have."""
    run_dir = job.run_dir
    paths = {run_dir.path, *run_dir.path.rglob("*"), *(run_dir.claim_file(number) for number in (2, 3))}
    paths |= {
        run_dir.checkpoint_file(60),
        run_dir.lattice_file(60),
        run_dir.final,
        run_dir.pass_file(2),
        run_dir.cancel_mark,
    }
    return sorted(paths)


def test_every_look_at_the_run_may_fail_for_a_moment(tmp_path: Path, size: int, tell: Callable[[str], None]) -> None:
    """Each look of a start and of training in turn, up to three times in a row: waited for, and no byte is lost."""
    trace = f"trace={','.join(LOOKING_CALLS)}"

    def begun(name: str) -> Job:
        job = Job(tmp_path / name, small_settings(**SETTINGS))
        job.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        assert job.run(max_steps=40) == 0, job.output
        return job

    whole = begun("whole")
    calls = tmp_path / "calls"
    watched = (word for path in _watched(whole) for word in ("-P", str(path)))
    whole.prefix = ("strace", "-f", "--seccomp-bpf", "-o", str(calls), *watched, "-e", trace)
    assert whole.run() == 0, whole.output
    made = [match[1] for line in calls.read_text().splitlines() if (match := re.match(r"\d+ +(\w+)\(", line))]
    every = [(call, number) for call in LOOKING_CALLS for number in range(1, made.count(call) + 1)]
    assert len(every) > 50
    stopped = 0
    for call, number in random.sample(every, min(size, len(every))):
        error, last = random.choice(["EIO", "ESTALE", "EACCES"]), number + random.randrange(3)
        job = begun(f"{call}-{number}")
        inject = f"error={error}:when={number}..{last}"
        job.prefix = strace(call, inject, _watched(job))
        code = job.run()
        printed, job.prefix = job.output, ()
        stopped += code != 0
        where = f"{call}:{inject}: exit code {code}\n{printed}"
        assert job.run() == 0, f"{where}\nthen: {job.output}"
        assert not [finding for finding in verify_run(job.run_dir) if not finding.good], where
        assert not list(job.run_dir.checkpoints.glob("*.bad")), where
        assert job.traces() == whole.traces(), where
    tell(f"{min(size, len(every))} of {len(every)} looks made to fail, {stopped} of them ended the process")


@pytest.mark.waits(70)
def test_a_page_of_any_file_may_be_lost(tmp_path: Path, size: int, tell: Callable[[str], None]) -> None:
    """After a kill, a page of a random file: the run goes on to the same weights, or its settings say that they are damaged."""
    whole = Job(tmp_path / "whole", small_settings())
    assert whole.run() == 0, whole.output
    lost: dict[str, int] = {}
    for number in range(max(2, size // 2)):
        job = Job(tmp_path / str(number), small_settings())
        job.interrupt(signal.SIGKILL, at_step=random.randrange(100, 350))  # with two checkpoints
        files = [path for path in job.run_dir.path.rglob("*") if path.is_file() and path.stat().st_size > 0]
        # Of as many kinds as there are, not mostly of pictures.
        kinds = {re.sub(r"\d+", "", path.name): path for path in random.sample(files, len(files))}
        kind = random.choice(sorted(kinds))
        lose_page(kinds[kind])
        lost[kind] = lost.get(kind, 0) + 1
        code = job.run()
        if kind == "settings.json":
            assert code == 2, job.output
            assert "is damaged" in job.output
            continue
        assert code == 0, f"{kind}: {job.output}"
        assert job.traces().weights == whole.traces().weights, kind
        assert job.traces().final_lattice == whole.traces().final_lattice, kind
        assert job.slurm("log", str(job.run_dir.path), "--csv", "--fields", "step") == 0, f"{kind}: {job.output}"
    tell("pages lost: " + ", ".join(f"{count} of {kind}" for kind, count in sorted(lost.items())))
