"""`aae-slurm check`: everything that would make a submit go wrong later, and the plan; nothing is changed."""

import json
import shutil
import sys
import textwrap

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.config.sources import Configuration
from job.errors import EXIT_FINISHED, EXIT_INTERRUPTED
from job.rundir.directory import RunDir
from job.rundir.status import read_status
from job.segment.footprint import footprint
from slurm.findings import Findings, Line
from slurm.login.batch_script import Order, script_text
from slurm.login.check.here import look_here
from slurm.login.check.on_node import look_from_node
from slurm.login.check.there import look_there
from slurm.login.plan import RunPlan, plan_run
from slurm.scheduler.site import Site, read_site

_WORD, _NAME = 8, 13  # columns


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm check",
        "Looks, for the run that the settings describe, for what would make a submit go wrong later, and reckons how long the\n"
        "run takes. Changes nothing. With --on-node a job of a few minutes looks from a compute node: the same command finds\n"
        "that job, or what it has found.\n"
        "Exit code 0: fine, perhaps with warnings; 1: an error line; 2: settings that cannot be.",
        "AAE_SLURM_TIME=04:00:00 aae-slurm check --epochs 100",
    )
    parser.add_argument(
        "--on-node", action="store_true", help="send a job that looks from a compute node, and wait for it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object: lines, facts, plan, findings")
    add_settings(parser)
    options, configuration = read_configuration_from(parser, arguments)
    allocation = configuration.allocation
    run_dir = RunDir(configuration.settings.run_dir)
    script = script_text(Order.of_run(run_dir, allocation), allocation)
    site = read_site(allocation.cluster)
    lines = [
        *look_here(configuration, footprint(configuration.settings)),
        *look_there(site, allocation, script),
    ]
    plan = _plan(configuration, site)
    if not options.json:
        print("".join(f"{shown(line)}\n" for line in lines), end="", flush=True)
    findings: Findings | None = None
    if options.on_node:
        try:
            findings, found = look_from_node(configuration.settings, allocation, _tell)
        except KeyboardInterrupt:
            print("\nthe job stays in the queue; the same command finds it, or what it has found", file=sys.stderr)
            return EXIT_INTERRUPTED
        lines += found
        plan = _plan(configuration, site)
        if not options.json:
            print("".join(f"{shown(line)}\n" for line in found), end="")
    if options.json:
        told = {
            "run": run_dir.path.name,
            "run_dir": str(run_dir.path),
            "lines": [line.as_json() for line in lines],
            "facts": site.as_json() if isinstance(site, Site) else None,
            "plan": plan.as_json(),
            "on_node": findings.model_dump(mode="json") if findings is not None else None,
        }
        print(json.dumps(told, indent=1))
    else:
        print("\nplan")
        print("\n".join(plan_lines(plan)))
    return 1 if any(line.state == "error" for line in lines) else EXIT_FINISHED


def _tell(line: str) -> None:
    print(f"check: {line}", file=sys.stderr, flush=True)


def _plan(configuration: Configuration, site: Site | str) -> RunPlan:
    try:
        status = read_status(RunDir(configuration.settings.run_dir))
    except OSError:
        status = None
    requeue_s = site.requeue_s if isinstance(site, Site) else None
    steps_done = min(status.step, configuration.settings.total_steps) if status is not None else 0
    return plan_run(configuration.settings, configuration.allocation, steps_done=steps_done, requeue_s=requeue_s)


def shown(line: Line) -> str:
    """A finding for people: wrapped on a terminal, never when it goes elsewhere."""
    head = f"{line.state:<{_WORD}} {line.name:<{_NAME}} "
    told = [_wrapped(head, line.text)]
    if line.next is not None and line.state != "ok":
        told.append(_wrapped(" " * len(head), f"-> {line.next}"))
    return "\n".join(told)


def plan_lines(plan: RunPlan) -> list[str]:
    """The plan for people, a line each."""
    return [_wrapped(f"  {word:<{_NAME - 3}} ", text) for word, text in plan.lines()]


def _wrapped(head: str, text: str) -> str:
    text = " ".join(text.split()) if sys.stdout.isatty() else text.replace("\n", "; ")
    if not sys.stdout.isatty():
        return head + text
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(
        head + text, width, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    )
