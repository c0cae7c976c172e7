"""What `aae-slurm check --on-node` looks at from a compute node: each by itself, so that one that fails hides no other."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.config.allocation import Allocation
from job.config.settings import Settings
from job.machine import source_digest, versions
from job.rundir.status import now
from slurm.findings import CheckDir, Findings, Line, Request
from slurm.node.start import Start

STEPS = 200
_TURNS = 3
_LOOK_TIMEOUT_S = 600


def look(folder: str, nonce: str, environment: Mapping[str, str]) -> None:
    """Look at everything and write findings.json; what is going on is printed."""
    check_dir, start = CheckDir(Path(folder)), Start.of(environment)
    assert start is not None, "a job calls this"
    request = check_dir.request()
    if request is None or request.nonce != nonce:
        raise SystemExit(
            f"{check_dir.request_file} is not what the login node has written: this node has other files there"
        )
    settings = Settings.model_validate(request.settings).model_copy(update={"runs_dir": check_dir.path}).with_cpus()
    allocation = Allocation.model_validate(request.slurm)
    lines = [Line("files", "ok", f"node {platform.node()} reads and writes {check_dir.path.parent.parent}")]
    lines += [_safely("python", lambda: _python(request)), _safely("gpu", lambda: _gpu(settings, allocation))]
    if lines[-1].state == "ok" and settings.cuda_graph is not False:
        lines.append(_safely("graph", lambda: _graph(settings)))
        lines.append(_safely("graph_refused", lambda: _graph_refused(settings)))
    lines.append(_safely("exact_resume", lambda: _exact_resume(settings)))
    measured: dict[str, Any] = {}
    lines.append(_safely("bench", lambda: _bench(settings, measured)))
    findings = Findings(
        nonce=nonce,
        like=request.like,
        host=platform.node(),
        job_id=start.job_id,
        at=now(),
        lines=[line.as_json() for line in lines],
        **measured,
    )
    beside = check_dir.findings_file.with_suffix(".tmp")
    beside.write_text(findings.model_dump_json(indent=1))
    beside.replace(check_dir.findings_file)


def _safely(name: str, look_at: Callable[[], Line]) -> Line:
    print(f"looking: {name}", flush=True)
    try:
        line = look_at()
    except Exception as error:  # whatever goes wrong on a node is what is looked for
        line = Line(name, "error", f"{type(error).__name__}: {error}")
    print(f"{line.state}: {line.text}", flush=True)
    return line


def _python(request: Request) -> Line:
    here, there = versions(), request.versions
    different = [
        f"{name} {here.get(name)} here, {there[name]} at login" for name in there if here.get(name) != there[name]
    ]
    if different:
        return Line(
            "python", "error", "; ".join(different), "AAE_SLURM_SETUP='[...]' loads other modules: leave them out"
        )
    if source_digest() != request.source_digest:
        return Line(
            "python", "error", f"{sys.prefix} holds other code of this project than at login", "pip install, again"
        )
    return Line("python", "ok", f"Python {here['python']} and torch {here['torch']} in {sys.prefix}, as at login")


def _gpu(settings: Settings, allocation: Allocation) -> Line:
    if allocation.gpus == "0" or settings.device == "cpu":
        return Line("gpu", "skipped", "no GPU is asked for")
    from job.proofs.children import alone
    from job.proofs.gpu import describe_gpu

    told: str | None = alone(describe_gpu, settings)
    if told is None:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        text = f"torch sees no GPU, though the job asked for {allocation.gpus} (CUDA_VISIBLE_DEVICES={given})"
        return Line("gpu", "error", text, "nvidia-smi, in a job: its driver has to be new enough for torch's CUDA")
    return Line("gpu", "ok", told)


def _graph(settings: Settings) -> Line:
    from job.proofs.children import alone
    from job.proofs.gpu import graph_gives_the_same_bytes

    if alone(graph_gives_the_same_bytes, settings):
        return Line("graph", "ok", "steps recorded as a CUDA graph give the same bytes as steps one by one")
    text = "steps recorded as a CUDA graph give other bytes: runs notice that and go without"
    return Line("graph", "warning", text, "AAE_CUDA_GRAPH=false")


def _graph_refused(settings: Settings) -> Line:
    from job.proofs.children import alone
    from job.proofs.gpu import refuses_what_cannot_be_recorded

    if alone(refuses_what_cannot_be_recorded, settings):
        return Line(
            "graph_refused", "ok", "a recording that was made to fail ends as it should: a run starts anew without"
        )
    return Line("graph_refused", "warning", "a recording that was made to fail did not", "AAE_CUDA_GRAPH=false")


def _exact_resume(settings: Settings) -> Line:
    short = settings.model_copy(
        update={"max_steps": STEPS, "checkpoint_every_steps": 50, "lattice_every_steps": 100, "log_every_steps": 10}
    )
    done = _command(["verify-resume", "--kills", "1"], short)
    if done.returncode == 0:
        return Line("exact_resume", "ok", f"{STEPS} steps with an interruption leave the same bytes as without one")
    said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
    return Line("exact_resume", "error", f"{STEPS} steps with an interruption do not leave the same bytes: {said}")


def _bench(settings: Settings, measured: dict[str, Any]) -> Line:
    done = _command(["bench", "--short", "--turns", str(_TURNS), "--json"], settings)
    if done.returncode != 0:
        return Line("bench", "error", " | ".join(done.stderr.strip().splitlines()[-3:]))
    found = json.loads(done.stdout)
    ours = next(mode for mode in found["modes"] if mode["kind"] == "ours")["aged"]
    measured["device"], measured["step_ms"] = found["device"], ours["step_ms_median"]
    threads = f"{found['num_threads']} thread{'s' * (found['num_threads'] > 1)}"
    text = f"{ours['step_ms_median']:.1f} ms a step on {found['device']} ({found['processor']}, {threads})"
    return Line("bench", "ok", f"{text}, {ours['times_lecture']:.1f} x the lecture's loop")


def _command(arguments: list[str], settings: Settings) -> "subprocess.CompletedProcess[str]":
    """A command of `aae-job` with these settings, which works below the check's own folder."""
    from job.proofs.interruptions import environment_of

    environment = environment_of(settings)
    command = [sys.executable, "-P", "-m", "job", *arguments]
    return subprocess.run(  # noqa: S603
        command, env=environment, capture_output=True, text=True, errors="replace", timeout=_LOOK_TIMEOUT_S, check=False
    )
