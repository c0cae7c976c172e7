"""What is known of a crash, and what becomes of the run: started again within its allowance, or ended with a verdict."""

import contextlib
import platform
import traceback
from typing import Any

from job.errors import AaeError, HangError, HopelessError, StorageError, UsageError
from job.log.events import Story
from job.log.reader import last_records
from job.log.writer import EventLog
from job.machine import peak_memory_bytes
from job.rundir.claim import Cause, Claim, read_segment
from job.rundir.directory import RunDir
from job.segment.restarts import used_up

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "unable to allocate")


class Crash(Story):
    """The story of a segment that ended in an error; `last_records` are the log's last ones before it."""

    step: int
    last_records: list[dict[str, Any]]

    @property
    def cause(self) -> Cause:
        """What it counts as in the claim of its segment."""
        if self.reason in ("refused", "exception", "out_of_memory", "killed", "hung", "no_gpu", "storage"):
            return self.reason  # type: ignore[return-value]  # mypy does not narrow str to these
        return "hopeless"


def crash_of(error: BaseException, run_dir: RunDir, step: int, device: str | None) -> Crash:
    """The story of an exception in this process; out of memory is recognised as such and told with what to change."""
    told = isinstance(error, AaeError)
    text = str(error) if told else f"{type(error).__name__}: {error}"
    reason = "refused" if isinstance(error, UsageError) else "exception"
    if isinstance(error, HopelessError):
        reason = error.reason
    elif isinstance(error, HangError | StorageError):
        reason = "hung" if isinstance(error, HangError) else "storage"
    elif not told and (isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY)):
        reason = "out_of_memory"
        text = f"{text}; {what_to_change(device, peak_memory_bytes())}"
    return Crash(
        reason=reason,
        error=text,
        exit_code=error.exit_code if isinstance(error, AaeError) else 1,
        step=step,
        host=platform.node(),
        device=device,
        peak_memory_bytes=peak_memory_bytes(),
        traceback=error.where if isinstance(error, HangError) else None if told else _traceback(error),
        last_records=records_before(run_dir),
    )


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def records_before(run_dir: RunDir) -> list[dict[str, Any]]:
    """The last records of the log, as a crash's story tells them."""
    records = last_records(run_dir.events_file, 3)
    return [{name: value for name, value in record.items() if name != "traceback"} for record in records]


def what_to_change(device: str | None, peak_bytes: int | None) -> str:
    """What to do about too little memory."""
    smaller = "train a smaller network (AAE_HIDDEN_DIM, AAE_BATCH_SIZE) under another AAE_RUN_NAME"
    used = f"this process had used up to {peak_bytes / 2**20:,.0f} MiB of main memory: " if peak_bytes else ""
    more = "raise AAE_SLURM_MEM"
    if device is not None and device != "cpu":
        more = f"if it was the GPU's memory, ask for a larger GPU (AAE_SLURM_CONSTRAINT), else {more}"
    return f"{used}{more}, or {smaller}"


def _may_have_gpu_elsewhere(run_dir: RunDir, claim: Claim) -> bool:
    """Whether another node is to be tried: the scheduler has named this one, and no other has said the same before."""
    owner, before = claim.segment.owner, read_segment(run_dir, claim.number - 1)
    said = before is not None and before.cause == "no_gpu" and before.owner.is_of_job(owner)
    return owner.node is not None and not (said and before is not None and before.owner.node != owner.node)


def settle(
    run_dir: RunDir, claim: Claim, log: EventLog, crash: Crash, saved_step: int, allowance: int | None
) -> dict[str, Any]:
    """Put a crash on record and decide what becomes of the run; returns the keys of status.json that say so.

    The state is `waiting` if the run is to be started again, else `failed`. `allowance` is None where nothing starts it
    again by itself; `saved_step` is the newest checkpoint's step, 0 for none.
    """
    log.write("failed", **crash.model_dump(exclude={"last_records"}))
    with contextlib.suppress(OSError):  # the disk may be what has failed; the status is still to be written
        claim.note(
            cause=crash.cause, failed_at=crash.step if crash.traceback is not None and crash.cause != "hung" else None
        )
    told = {"state": "failed", "reason": crash.reason, "verdict": crash.error, "exit_code": crash.exit_code}
    told |= {"crash": crash.model_dump(), "eta_s": None}
    if allowance is None or crash.cause in ("refused", "hopeless"):
        return told
    if crash.cause == "no_gpu" and not _may_have_gpu_elsewhere(run_dir, claim):
        return told
    spent = used_up(run_dir, claim.number, claim.segment, saved_step, allowance)
    if spent is not None:
        return told | {"verdict": f"{crash.error}; {spent}", "exit_code": HopelessError.exit_code}
    return told | {
        "state": "waiting",
        "verdict": f"{crash.error}; the job starts again, from step {saved_step:,}",
    }
