"""`aae-slurm submit --sweep`: many runs as one thing."""

import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

from job.config.flags import Flags
from job.errors import EXIT_FINISHED, UsageError
from job.output import as_it_stands
from job.rundir.directory import RunDir
from job.rundir.status import read_status
from job.rundir.sweep import Sweep, SweepDir
from slurm.login.batch_script import ignored_options
from slurm.login.paces import Paces
from slurm.login.plan import SweepPlan, plan_run
from slurm.login.sweep.axes import Asked, ask, described, loop_to_type, read_axes
from slurm.login.sweep.send import Outcome, dry_run, submit_sweep
from slurm.scheduler.site import requeue_s


def run_sweep(flags: Flags) -> int:
    """Run the command; returns the exit code. Raises AaeError."""
    options = flags.options
    axes = read_axes(options.sweep)
    asked = ask(axes, flags)
    if options.local:
        raise UsageError(
            "a sweep needs Slurm's job arrays, and --local has none. Here the runs train one after the other, and what is "
            f"finished is passed over when it is typed again:\n  {loop_to_type(axes, flags)}"
        )
    if options.dry_run:
        sweep, scripts = dry_run(asked, options.parallel)
        if options.json:
            told = {"sweep": sweep.name, "elements": [e.model_dump() for e in sweep.elements], "scripts": scripts}
            print(json.dumps(told, indent=1))
            return EXIT_FINISHED
        for element in sweep.elements:
            print(f"{element.index:>5}  {element.run}  {described(element.values)}", file=sys.stderr)
        for script in scripts:
            as_it_stands().write(script)
        return EXIT_FINISHED
    for line in ignored_options():
        print(f"aae-slurm: note: {line}", file=sys.stderr)
    tell: Callable[[Sweep], None] = (
        (lambda _: None) if options.json else (lambda sweep: print(_head(sweep), flush=True))
    )
    outcome = submit_sweep(asked, options.parallel, tell)
    ahead = _ahead(asked, outcome)
    told = _as_json(asked, outcome) | {"plan": ahead.as_json()}
    print(json.dumps(told, indent=1) if options.json else _told(asked, outcome, ahead))
    if outcome.refusal is not None:
        raise outcome.refusal
    return EXIT_FINISHED


def _head(sweep: Sweep) -> str:
    sizes = " x ".join(f"{len(axis.values)} of {', '.join(axis.fields)}" for axis in sweep.axes)
    lines = [f"sweep  {sweep.name}: {len(sweep.elements)} run{'s' * (len(sweep.elements) > 1)}, {sizes}"]
    ends = (
        {"first": sweep.elements[0], "last": sweep.elements[-1]}
        if len(sweep.elements) > 1
        else {"run": sweep.elements[0]}
    )
    return "\n".join([*lines, *(f"{word:<6} {end.run}  {described(end.values)}" for word, end in ends.items())])


def _ahead(asked: Asked, outcome: Outcome) -> SweepPlan:
    """The plan of those that are not finished yet."""
    known, plans = Paces(asked.runs_dir), []
    waits_s = requeue_s(next(iter(asked.runs.values())).allocation.cluster)
    for run, configuration in asked.runs.items():
        if run in outcome.live or run in outcome.submitted:
            status = read_status(RunDir(configuration.settings.run_dir))
            steps_done = status.step if status is not None else 0
            plans.append(
                plan_run(
                    configuration.settings,
                    configuration.allocation,
                    steps_done=steps_done,
                    requeue_s=waits_s,
                    known=known,
                )
            )
    sweep = SweepDir.named(asked.runs_dir, asked.sweep.name).read()
    return SweepPlan(plans, sweep.arrays[-1].parallel if sweep is not None and sweep.arrays else None)


def _typed(asked: Asked) -> str:
    """The sweep as any shell finds it."""
    return shlex.quote(str(asked.runs_dir / asked.sweep.name))


def _told(asked: Asked, outcome: Outcome, ahead: SweepPlan) -> str:
    name = _typed(asked)
    lines = [f"{len(outcome.finished):>5}  finished already"] if outcome.finished else []
    if outcome.live:
        example = next(iter(outcome.live.values()))
        lines.append(f"{len(outcome.live):>5}  queued or running already, such as {example}")
    for number, array in enumerate(outcome.arrays):
        at_once = f", at most {array.parallel} at once" if array.parallel else ""
        after = f", after array {outcome.arrays[number - 1].job_id}" if number and array.parallel else ""
        lines.append(f"{len(array.indices):>5}  submitted as array {array.job_id}{at_once}{after}")
    missing = _num_missing(asked, outcome)
    lines += [f"{missing:>5}  not submitted"] if missing else []
    lines += [f"plan   {ahead.summary}"] if ahead.plans else []
    lines += [f"note: {note}" for note in outcome.notes]
    following = [f"aae-slurm status {name} --runs", f"aae-slurm collect {name} results"]
    if outcome.live or outcome.submitted:
        following = [f"aae-slurm watch {name}", f"aae-slurm status {name} --runs", f"aae-slurm cancel {name}"]
    return "\n".join([*lines, "next:", *(f"  {line}" for line in following)])


def _num_missing(asked: Asked, outcome: Outcome) -> int:
    return len(asked.runs) - len(outcome.finished) - len(outcome.live) - len(outcome.submitted)


def _as_json(asked: Asked, outcome: Outcome) -> dict[str, Any]:
    runs = [
        {
            "run": run,
            "run_dir": str(configuration.settings.run_dir),
            "state": "finished" if run in outcome.finished else None if run not in outcome.submitted else "submitted",
            "job_id": outcome.submitted.get(run),
            "is_new": run in outcome.submitted,
        }
        for run, configuration in asked.runs.items()
    ]
    return {
        "sweep": asked.sweep.name,
        "runs": runs,
        "arrays": [array.model_dump() for array in outcome.arrays],
        "num_finished": len(outcome.finished),
        "num_live": len(outcome.live),
        "num_submitted": len(outcome.submitted),
        "num_missing": _num_missing(asked, outcome),
        "notes": outcome.notes,
        "next": f"aae-slurm status {_typed(asked)}",
    }
