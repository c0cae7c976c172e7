"""Hands a sweep over to Slurm: what of it is neither finished nor under way goes into new job arrays."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from job.rundir.cancel import remove_mark
from job.rundir.directory import RunDir
from job.rundir.sweep import Array, Sweep, SweepDir
from job.segment.plan import Plan
from slurm.login.batch_script import Order, script_text, submit_to_slurm
from slurm.login.clusters import Queues, clusters_of
from slurm.login.submit_once import (
    QUEUE_TIMEOUT_S,
    Handover,
    holder_of,
    jobs_on,
    require_sbatch,
    submitted_after_all,
)
from slurm.login.submitter import only_submitter
from slurm.login.sweep.axes import Asked
from slurm.login.sweep.plan import chunks, next_array, parallel_of, plan_sweep
from slurm.scheduler.arrays import most_elements, set_after, set_throttle
from slurm.scheduler.errors import SchedulerError
from slurm.scheduler.queue import Job

# In Slurm's words: more jobs than this user may have in the queue, each element counted as one.
_TOO_MANY = ("submit limit", "maxsubmit", "max_submit", "too many jobs", "job submit limit")


@dataclass
class Outcome:
    """What became of the elements of a sweep, by their runs' names, and what is to be said of it."""

    finished: list[str] = field(default_factory=list)
    live: dict[str, str] = field(default_factory=dict)  # who has it, in words
    submitted: dict[str, str] = field(default_factory=dict)  # the job's id
    arrays: list[Array] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusal: SchedulerError | None = None


def dry_run(asked: Asked, parallel: int | None) -> tuple[Sweep, list[str]]:
    """The sweep, and the scripts of the arrays that a submit would send now, by what the queue says if there is one.

    Of several that are to follow each other the later ones cannot name the earlier yet.
    """
    sweep_dir, sweep, plans = plan_sweep(asked)
    return sweep, _Sender(sweep_dir, sweep, plans, asked, parallel).scripts()


def submit_sweep(asked: Asked, parallel: int | None, tell: Callable[[Sweep], None]) -> Outcome:
    """Submit what of a sweep is neither finished nor under way; `tell` gets the sweep before anything is sent.

    Raises UsageError, SchedulerError or NoAnswerError; what has been submitted by then is on record and found again.
    """
    sweep_dir, _, plans = plan_sweep(asked)  # before the first folder is made
    if not all(plan.is_finished for plan in plans.values()):
        require_sbatch()
    with only_submitter(sweep_dir.path) as alive:
        sweep_dir, sweep, plans = plan_sweep(asked)
        tell(sweep)
        with _only_submitter_of([plan for plan in plans.values() if not plan.is_finished]) as all_alive:
            sender = _Sender(sweep_dir, sweep, plans, asked, parallel)
            return sender.send(lambda: (alive(), all_alive()))


@contextlib.contextmanager
def _only_submitter_of(plans: list[Plan]) -> Iterator[Callable[[], None]]:
    """Hold all runs against other submitters, in an order that two sweeps with the same runs cannot block each other by."""
    with contextlib.ExitStack() as stack:
        alive: list[Callable[[], None]] = []
        for path in sorted(plan.run_dir.path for plan in plans):
            alive.append(stack.enter_context(only_submitter(path)))

        def all_alive() -> None:
            for tell in alive:
                tell()

        yield all_alive


class _Sender:
    """One submit of a sweep."""

    def __init__(
        self, sweep_dir: SweepDir, sweep: Sweep, plans: dict[str, Plan], asked: Asked, parallel: int | None
    ) -> None:
        self._dir = sweep_dir
        self._sweep = sweep
        self._plans = plans
        self._allocation = next(iter(asked.runs.values())).allocation
        self._parallel = parallel_of(sweep, parallel)
        self._outcome = Outcome()
        self._after: list[str] = []  # the arrays that the next one is to come after, if it has a throttle

    def send(self, alive: Callable[[], object]) -> Outcome:
        """Send what is missing."""
        stood = self._dir.read()
        if all(plan.is_finished for plan in self._plans.values()):
            self._outcome.finished += self._plans  # which needs no Slurm
            todo = []
        else:
            todo = self._missing(jobs_on(Queues(QUEUE_TIMEOUT_S), *self._clusters()))
        arrays = chunks(todo, most_elements(self._allocation.cluster) if todo else 1)
        self._throttle()
        self._dir.write(self._sweep)
        for indices in arrays:
            alive()
            self._send_as_far_as_allowed(indices)
            if self._outcome.refusal is not None:
                break
        if self._outcome.refusal is not None and not self._outcome.arrays:
            self._put_back(stood)
        return self._outcome

    def _put_back(self, stood: Sweep | None) -> None:
        """Nothing was sent: leave the sweep as it was, or none."""
        if stood is not None or self._sweep.arrays:
            self._dir.write((stood or self._sweep).model_copy(update={"arrays": self._sweep.arrays}))
            return
        self._dir.file.unlink()
        with contextlib.suppress(OSError):
            self._dir.slurm.rmdir()

    def scripts(self) -> list[str]:
        """What `send` would send; writes and sends nothing."""
        todo = self._missing(Queues(QUEUE_TIMEOUT_S).of(*self._clusters()) or [])
        scripts = []
        for indices in chunks(todo, most_elements(self._allocation.cluster) if todo else 1):
            array = next_array(self._sweep, indices, self._allocation, self._parallel)
            self._sweep = self._sweep.model_copy(update={"arrays": [*self._sweep.arrays, array]})
            scripts.append(script_text(self._order(array), self._allocation))
        return scripts

    def _clusters(self) -> set[str | None]:
        return {self._allocation.cluster, *(c for p in self._plans.values() for c in clusters_of(p.run_dir))}

    def _run_dirs(self, array: Array) -> list[RunDir]:
        return [self._dir.run_dir(self._sweep.elements[index].run) for index in array.indices]

    def _order(self, array: Array) -> Order:
        after = tuple(self._after) if self._parallel else ()
        return Order.of_array(self._dir, array, self._run_dirs(array), self._allocation, after)

    def _missing(self, jobs: list[Job]) -> list[int]:
        """The indices of what is neither finished nor under way."""
        plans = self._plans
        self._settle(jobs)
        self._after = self._live_arrays(jobs)
        todo = []
        for element in self._sweep.elements:
            plan = plans[element.run]
            if plan.is_finished:
                self._outcome.finished.append(element.run)
            elif (found := holder_of(plan.run_dir, jobs)) is not None:
                self._outcome.live[element.run] = found.holder
            else:
                todo.append(element.index)
        return todo

    def _settle(self, jobs: list[Job]) -> None:
        """Find the array whose id an earlier submitter was not told, or forget it: squeue knows of none."""
        known = {array.job_id for array in self._sweep.arrays}
        unknown = next(
            (number for job in self._own(jobs) if (number := job.job_id.partition("_")[0]) not in known), None
        )
        arrays = [a if a.job_id else a.model_copy(update={"job_id": unknown}) for a in self._sweep.arrays]
        self._sweep = self._sweep.model_copy(update={"arrays": [array for array in arrays if array.job_id]})

    def _own(self, jobs: list[Job]) -> list[Job]:
        folder = os.path.realpath(self._dir.slurm)
        return [job for job in jobs if job.command and os.path.realpath(Path(job.command).parent) == folder]

    def _live_arrays(self, jobs: list[Job]) -> list[str]:
        live = [job for job in self._own(jobs) if job.is_pending or job.is_alive]
        return sorted({job.job_id.partition("_")[0] for job in live}, key=int)

    def _throttle(self) -> None:
        """Tell the live arrays of another throttle; and to follow each other, since each has one of its own."""
        arrays = list(self._sweep.arrays)
        if self._parallel:
            for before, array_id in itertools.pairwise(self._after):
                set_after(array_id, before, self._allocation.cluster)
        words = f"at most {self._parallel} at once" if self._parallel else "as many at once as the cluster lets"
        for number, array in enumerate(arrays):
            if array.job_id is None or array.job_id not in self._after or array.parallel == self._parallel:
                continue
            refusal = set_throttle(array.job_id, self._parallel or 0, self._allocation.cluster)
            if refusal is None:
                arrays[number] = array.model_copy(update={"parallel": self._parallel})
            self._outcome.notes.append(
                f"array {array.job_id}: " + (words if refusal is None else f"not {words}: {refusal}")
            )
        self._sweep = self._sweep.model_copy(update={"arrays": arrays})

    def _send_as_far_as_allowed(self, indices: list[int]) -> None:
        """Send an array; in halves where that is more than this user may have in the queue, until one is not taken."""
        try:
            self._send(indices)
        except SchedulerError as error:
            if not any(words in str(error).lower() for words in _TOO_MANY) or len(indices) == 1:
                self._outcome.refusal = error
                return
            middle = len(indices) // 2
            self._send_as_far_as_allowed(indices[:middle])
            if self._outcome.refusal is None:
                self._send_as_far_as_allowed(indices[middle:])

    def _send(self, indices: list[int]) -> None:
        array = next_array(self._sweep, indices, self._allocation, self._parallel)
        plans = [self._plans[self._sweep.elements[index].run] for index in indices]
        before = self._sweep
        handovers: list[Handover] = []
        self._dir.slurm.mkdir(exist_ok=True)
        there = set(self._dir.slurm.iterdir())

        def put_back() -> None:
            for handover in handovers:
                handover.put_back()
            for path in set(self._dir.slurm.iterdir()) - there:
                path.unlink(missing_ok=True)
            self._sweep = before
            self._dir.write(before)

        try:
            for plan in plans:
                handovers.append(Handover(plan, self._allocation.cluster))
            self._note(array)
        except OSError:
            put_back()
            raise
        try:
            job_id = submit_to_slurm(self._order(array), self._allocation)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            known = {a.job_id for a in before.arrays}
            found = submitted_after_all(
                error,
                self._allocation.cluster,
                lambda jobs: [job for job in self._own(jobs) if job.job_id.partition("_")[0] not in known],
            )
            if found is None:
                refusal = SchedulerError(str(error))
                if not refusal.may_have_submitted:
                    put_back()
                raise refusal from error
            job_id = found.job_id.partition("_")[0]
        array = array.model_copy(update={"job_id": job_id})
        self._sweep = before
        self._note(array)
        for plan in plans:
            remove_mark(plan.run_dir)
        self._outcome.arrays.append(array)
        self._outcome.submitted |= {plan.run_dir.path.name: f"{job_id}_{task}" for task, plan in enumerate(plans)}
        self._after = [job_id]

    def _note(self, array: Array) -> None:
        self._sweep = self._sweep.model_copy(update={"arrays": [*self._sweep.arrays, array]})
        self._dir.write(self._sweep)
