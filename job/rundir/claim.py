"""One writer a run: each start claims a segment number by exclusive creation, and only the newest claim may write.

Nothing here needs a lock of the filesystem, and claims are looked up by name, since the listing of a shared folder may
lag. A crash leaves a claim that the next start finds dead: at once on the same host, else by a heartbeat that stands still.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel

from job.errors import TakenOverError
from job.rundir.directory import CANNOT, RunDir, create_exclusively
from job.rundir.liveness import Owner
from job.rundir.small_file import DamagedError, exists, names_in, read_json
from job.rundir.status import read_status

StopReason = Literal["time_limit", "preemption", "requeue", "cancel", "interrupt", "terminated"]
# How a segment ended: it reached its end, was asked to stop, or something became of it.
Cause = Literal[
    "finished",
    "saturated",
    StopReason,
    "refused",
    "exception",
    "out_of_memory",
    "killed",
    "hung",
    "no_gpu",
    "no_graph",
    "storage",
    "hopeless",
    "elsewhere",
]

TAKEOVER_S = 60.0
POLL_S = 0.5


class Segment(BaseModel):
    """What stands in a claim: whose it is and, as far as that is known, from where the segment went on and how it ended.

    `from_step` is the step it went on from and `began_at` when, in seconds since the epoch, None before it has loaded;
    `cause` is None while it lives, and for ever if it died without a word. `failed_at` is the step that an exception ended.
    `has_pass` tells that the right to write is a file of its own, which an earlier version did not know.
    `path` is the real path of the run directory: the claim of a run that was copied or moved is another run's.
    """

    owner: Owner
    path: str | None = None
    from_step: int | None = None
    began_at: float | None = None
    cause: Cause | None = None
    failed_at: int | None = None
    has_pass: bool = False

    def is_over(self, successor: Owner) -> bool:
        """Whether `successor`, this process, can tell for sure that the segment writes no more."""
        return self.cause is not None or self.owner.is_over(successor)


def read_segment(run_dir: RunDir, number: int) -> Segment | None:
    """What stands in a claim; None if there is none, or a damaged one. Raises OSError if it cannot be read now."""
    try:
        segment = read_json(run_dir.claim_file(number), Segment)
    except DamagedError:
        return None
    if segment is None or segment.path in (None, os.path.realpath(run_dir.path)) or segment.cause is not None:
        return segment
    return segment.model_copy(update={"cause": "elsewhere"})  # it lives, or has died, as another run's


class Claim:
    """The right to write in a run directory as one segment, until a newer claim appears."""

    def __init__(self, run_dir: RunDir, number: int, segment: Segment) -> None:
        self.number = number
        self.segment = segment
        self._run_dir = run_dir

    def check(self) -> None:
        """Raise TakenOverError if a later start has claimed the run.

        Whether the next claim is there a client of a network file system may answer from its cache, for a minute say. Whether
        one's own pass is still there it cannot: to touch a file it has to ask the server, where the later start has removed it.
        """
        if self._is_over():
            raise TakenOverError(
                f"{self._run_dir.path}: segment {self.number + 1} has taken this run over while segment {self.number} "
                f"({self.segment.owner}) did not answer; this process writes nothing more. The run goes on there"
            )

    def _is_over(self) -> bool:
        if self.segment.has_pass:
            try:
                os.utime(self._run_dir.pass_file(self.number))
            except FileNotFoundError:
                if exists(self._run_dir.claim_file(self.number)):
                    return True
                raise  # the whole run is away
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
                if not exists(self._run_dir.pass_file(self.number)):
                    return True
        return exists(self._run_dir.claim_file(self.number + 1))

    def shut_out_earlier(self) -> None:
        """Take from all earlier segments the right to write; raises OSError, and may be tried again."""
        folder = self._run_dir.claim_file(self.number).parent
        for name in {*names_in(folder), self._run_dir.pass_file(self.number - 1).name}:
            if name.endswith(".pass") and name < self._run_dir.pass_file(self.number).name:
                (folder / name).unlink(missing_ok=True)

    def note(self, **changes: Any) -> None:
        """Write down what is known of the segment now; a `cause` tells the next start that it need not wait."""
        self.segment = self.segment.model_copy(update=changes)
        self._run_dir.replace(self._run_dir.claim_file(self.number), self.segment.model_dump_json().encode())


def newest_claim(run_dir: RunDir) -> int:
    """The number of the newest segment, 0 if there is none; looked up by name. Raises OSError if that cannot be said now."""
    status = read_status(run_dir)
    number = status.segment if status is not None and exists(run_dir.claim_file(status.segment)) else 0
    while exists(run_dir.claim_file(number + 1)):
        number += 1
    return number


def claim_run(run_dir: RunDir, owner: Owner, tell: Callable[[str], None] = lambda _: None) -> Claim:
    """Become the writer of a run; raises TakenOverError, naming the holder, if another process lives.

    Waits up to TAKEOVER_S for a sign of life of a holder that cannot be checked; `tell` gets a line about it.
    """
    while True:
        newest = newest_claim(run_dir)
        if newest > 0:
            _wait_for_end(run_dir, newest, owner, tell)
        segment = Segment(owner=owner, path=os.path.realpath(run_dir.path), has_pass=True)
        try:
            run_dir.claim_file(newest + 1).parent.mkdir(exist_ok=True)
            run_dir.pass_file(newest + 1).touch()  # first, so that there is no claim without it
            create_exclusively(run_dir.claim_file(newest + 1), segment.model_dump_json().encode())
        except FileExistsError:
            time.sleep(POLL_S)  # a shared filesystem may show the other's claim a moment later
            continue
        return Claim(run_dir, newest + 1, segment)


def _wait_for_end(run_dir: RunDir, number: int, owner: Owner, tell: Callable[[str], None]) -> None:
    """Return when the holder of a segment writes no more or a newer claim appears; raise if it shows life."""
    holder = read_segment(run_dir, number)
    before = read_status(run_dir)
    deadline = time.monotonic() + TAKEOVER_S
    told = False
    while not (holder is not None and holder.is_over(owner)) and time.monotonic() < deadline:
        if exists(run_dir.claim_file(number + 1)):
            return
        name = holder.owner if holder is not None else None
        current = read_status(run_dir)
        if current != before and current is not None and current.state == "running":
            raise TakenOverError(
                f"{run_dir.path}: {name or 'another process'} is writing this run; "
                "wait for it or stop it (Ctrl-C or SIGTERM there), then type the same command again"
            )
        if not told:
            tell(f"waiting up to {TAKEOVER_S:.0f} s for a sign of life of {name or 'the last segment'}")
            told = True
        time.sleep(POLL_S)
        holder = read_segment(run_dir, number)
