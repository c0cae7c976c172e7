"""What a sweep is going to be: compared with what stands there, before anything is written."""

from job.config.allocation import Allocation
from job.errors import UsageError
from job.rundir.status import now
from job.rundir.sweep import Array, Sweep, SweepDir
from job.segment.plan import Plan, plan_start
from slurm.login.sweep.axes import Asked, described


def plan_sweep(asked: Asked) -> tuple[SweepDir, Sweep, dict[str, Plan]]:
    """Compare a sweep with what stands there: its folder, the sweep with the elements of both, and the plan of each run.

    Raises UsageError, with the differences of all elements, if it is another sweep or one of its runs has other settings.
    """
    sweep_dir = SweepDir.named(asked.runs_dir, asked.sweep.name)
    if sweep_dir.run_dir(asked.sweep.name).settings_file.exists():
        raise UsageError(
            f"{sweep_dir.run_dir(asked.sweep.name).path} is a run, so no sweep may be called {asked.sweep.name}; "
            "set AAE_RUN_NAME to another name"
        )
    sweep = _merged(sweep_dir, asked.sweep)
    values = {element.run: described(element.values) for element in sweep.elements}
    plans, refusals = {}, []
    for run, configuration in asked.runs.items():
        try:
            plans[run] = plan_start(configuration)
        except UsageError as error:
            refusals.append(f"{values[run]}: {error}")
    if refusals:
        raise UsageError("\n".join(dict.fromkeys(refusals)))
    return sweep_dir, sweep, plans


def _merged(sweep_dir: SweepDir, asked: Sweep) -> Sweep:
    """The stored sweep with what is asked for beyond it; elements keep their indices, by which arrays know them."""
    stored = sweep_dir.read()
    if stored is None:
        return asked
    by_run = {element.run: element for element in asked.elements}
    missing = [element for element in stored.elements if element.run not in by_run]
    if missing:
        raise UsageError(
            f"{sweep_dir.file} is a sweep with other axes; it has {len(stored.elements)} runs, of which {len(missing)} are not "
            f"among those asked for now, such as {described(missing[0].values)}; nothing was written. Values may be added, none "
            "left out: give all of them, or take another AAE_RUN_NAME"
        )
    known = {element.run for element in stored.elements}
    added = [element for element in asked.elements if element.run not in known]
    first = len(stored.elements)
    elements = [*stored.elements, *(e.model_copy(update={"index": first + n}) for n, e in enumerate(added))]
    return asked.model_copy(update={"elements": elements, "arrays": stored.arrays})


def next_array(sweep: Sweep, indices: list[int], allocation: Allocation, parallel: int | None) -> Array:
    """The entry of an array that is about to be sent."""
    number = max((array.number for array in sweep.arrays), default=0) + 1
    return Array(number=number, cluster=allocation.cluster, indices=indices, parallel=parallel, submitted_at=now())


def parallel_of(sweep: Sweep, asked: int | None) -> int | None:
    """How many may run at once: what is asked for now, 0 for no limit, else what the last array was submitted with."""
    if asked is None:
        return sweep.arrays[-1].parallel if sweep.arrays else None
    return asked or None


def chunks(indices: list[int], most: int) -> list[list[int]]:
    """The arrays that so many elements take, of at most so many each; raises UsageError if there can be none."""
    if most < 1:
        raise UsageError("this cluster has no job arrays (MaxArraySize=0); submit the runs one by one, without --sweep")
    return [indices[first : first + most] for first in range(0, len(indices), most)]
