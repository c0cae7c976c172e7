"""What is seen of a watched run at a moment: its files, and what the scheduler has said last."""

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from job.rundir.directory import RunDir
from job.rundir.small_file import is_folder
from job.rundir.status import DAMAGED, Status, read_status
from slurm.login.forecast import Forecast
from slurm.login.states import Shown, heartbeat_age_s, show
from slurm.login.watch.course import Course
from slurm.login.watch.queue import RareQueue
from slurm.scheduler.queue import Job

OLD_S = 30.0  # a heartbeat that is older is worth asking the scheduler
SURE_AFTER_S = (
    5.0  # an end that only the scheduler tells has to last: what was written last may take a moment to be seen
)
PATIENCE_S = 60.0  # how long a run directory may be gone, or its status.json damaged


@dataclass
class Look:
    """A run as it was seen last; `shown` is None before that.

    `job` waits in the queue. `note` is what the scheduler adds to
    its state. `trouble` is why it cannot be looked at, since the monotonic time `trouble_s`; None if it can. `new` holds the
    records that came since the look before; `ended` tells that nothing more is to be expected.
    """

    run_dir: RunDir
    course: Course
    shown: Shown | None = None
    job: Job | None = None
    note: str = ""
    trouble: str | None = None
    trouble_s: float = 0.0
    new: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run_dir.path.name

    @property
    def state(self) -> str:
        """What readers show; of a run whose directory is not there, that."""
        if self.shown is None or (self.ended and self.trouble is not None):
            return "not there" if self.trouble is not None else "unknown"
        return self.shown.state

    @property
    def ahead(self) -> Forecast | None:
        """What is ahead of it, None where that is not known or nothing is."""
        return self.shown.forecast if self.shown is not None and not self.ended else None

    @property
    def needs_person(self) -> bool:
        """Whether it will not go on by itself, or is not there any more."""
        return self.state == "not there" or (self.shown is not None and self.shown.needs_person)


class Watched:
    """A run that is looked at again and again; `look` is how it was seen last."""

    def __init__(self, run_dir: RunDir, course: Course) -> None:
        self.look = Look(run_dir, course)
        self._status: Status | None = None
        self._changed_s = 0.0
        self._ending_s: float | None = None

    @property
    def why(self) -> Hashable:
        """Changes when the scheduler might have something new to say of the run."""
        status = self._status
        if status is None:
            return None
        return status.state, status.segment, status.state == "running" and heartbeat_age_s(status) > OLD_S

    def again(self, queue: RareQueue) -> Look:
        """Look once more; what cannot be seen now stays as it was."""
        look = self.look
        look.new = []
        try:
            trouble = self._see(queue)
        except OSError as error:
            trouble = f"cannot be read now: {error.strerror or error}"
        if trouble is not None and look.trouble is None:
            look.trouble_s = time.monotonic()
        look.trouble = trouble
        return look

    def _see(self, queue: RareQueue) -> str | None:
        """Look at the files; returns what keeps them from being seen."""
        look = self.look
        status = read_status(look.run_dir)
        is_lasting = look.trouble is not None and time.monotonic() - look.trouble_s >= PATIENCE_S
        if status is None:
            look.ended = is_lasting
            return "has no status yet" if is_folder(look.run_dir.path) else "its directory is not there"
        if status.reason == DAMAGED and look.shown is not None and not is_lasting:
            return str(status.verdict)  # it may be being written over
        if self._status is None or (status.state, status.segment) != (self._status.state, self._status.segment):
            self._changed_s = time.monotonic()
        self._status = status
        look.new = look.course.read()
        # An answer that is older than what the run itself tells says nothing of it.
        is_late = queue.asked_s is None or queue.asked_s < self._changed_s
        jobs = None if is_late else queue.jobs_of(look.run_dir)
        shown = show(look.run_dir, jobs)
        if shown is None:
            return "its directory is not there"
        waits = shown.pending_reason is not None
        look.shown = shown
        look.job = next((job for job in jobs or [] if waits and job.is_pending and job.job_id == shown.job_id), None)
        look.note = "" if is_late else shown.note
        look.ended = self._has_ended(shown)
        return None

    def _has_ended(self, shown: Shown) -> bool:
        if shown.status.state in ("finished", "failed", "cancelled"):
            return True
        if shown.state not in ("lost", "cancelled") and not (shown.needs_person and shown.pending_reason is None):
            self._ending_s = None
            return False
        self._ending_s = self._ending_s or time.monotonic()
        return time.monotonic() - self._ending_s >= SURE_AFTER_S
