"""Whether and how a segment leaves: what a signal means, by Slurm's own view of the job."""

import signal
import time
from dataclasses import dataclass

from job.rundir.claim import StopReason
from slurm.node.signals import AllocationStop
from slurm.node.start import Start
from slurm.scheduler.queue import GOES_ON, show_job

# preempt_send_user_signal without a grace time: SIGUSR2 and SIGTERM are sent apart, come in either order, and may come before
# Slurm's own view of the job tells of the preemption.
USER_SIGNAL_WAIT_S = 0.5


@dataclass(frozen=True)
class Leave:
    """How a segment leaves: why, and whether it has the job started again or Slurm does so by itself."""

    reason: StopReason
    why: str
    requeue: bool
    slurm_restarts: bool = False


def decide(reason: StopReason, stop: AllocationStop, start: Start) -> Leave | None:
    """Whether and how to leave; everything is saved. None: train on."""
    if reason == "cancel":
        return Leave("cancel", "cancelled by aae-slurm cancel", requeue=False)
    if start.local:
        return Leave(reason, _named(stop, reason), requeue=reason == "time_limit")
    if reason == "time_limit" and stop.signal is None:
        near = Leave(reason, "the allocation ends in seconds and no signal came", requeue=True)
        return _meaning_of_end(show_job(start.job_id), start, by_user_signal=False) or near
    if stop.signal in (signal.SIGUSR2, signal.SIGTERM):
        job = show_job(start.job_id)
        if stop.signal == signal.SIGUSR2 and not _is_preempted(job):
            time.sleep(USER_SIGNAL_WAIT_S)
            job = show_job(start.job_id) or job
        leave = _meaning_of_signal(stop.signal, job, start)
        if leave is not None and leave.reason == "requeue" and stop.comes(signal.SIGUSR2, USER_SIGNAL_WAIT_S):
            return _meaning_of_signal(signal.SIGUSR2, job, start)
        return leave
    if stop.signal is None:
        return None  # one of the saves after a SIGTERM that was no end
    return Leave(reason, _named(stop, reason), requeue=False)


def _is_preempted(job: dict[str, str] | None) -> bool:
    return job is not None and job.get("PreemptTime", "None") not in ("None", "")


def _meaning_of_signal(number: signal.Signals, job: dict[str, str] | None, start: Start) -> Leave | None:
    """Slurm sends the same signal for several ends; its own view of the job tells which. None: no end as far as is known."""
    by_user_signal = number == signal.SIGUSR2
    leave = _meaning_of_end(job, start, by_user_signal=by_user_signal)
    if leave is not None:
        return leave
    if _is_preempted(job):
        return Leave("preemption", "preempted, in its grace time", requeue=True)
    return Leave("time_limit", "the time limit is near", requeue=True) if by_user_signal else None


def _meaning_of_end(job: dict[str, str] | None, start: Start, *, by_user_signal: bool) -> Leave | None:
    """Why Slurm is ending the job at this moment; None if it is not, or gives no answer."""
    state = job.get("JobState", "") if job is not None else ""
    if job is None or not state or state in GOES_ON:
        return None
    if job.get("Reason") == "TimeLimit" or state == "TIMEOUT":
        return Leave("time_limit", "the time limit is over", requeue=True)
    if int(job.get("Restarts") or 0) > start.restart_count:
        # Preemption without a grace time ends the job at once; SIGUSR2 along with that is preempt_send_user_signal.
        reason: StopReason = "preemption" if _is_preempted(job) or by_user_signal else "requeue"
        return Leave(
            reason,
            "requeued (preempted, moved off a node or by an operator): Slurm starts the job again by itself",
            requeue=False,
            slurm_restarts=True,
        )
    if _is_preempted(job):
        # By CANCEL without a grace time: Slurm ends the job for good, unless it is asked to start it again.
        return Leave("preemption", "preempted", requeue=True)
    return Leave("cancel", "cancelled by scancel", requeue=False)


def _named(stop: AllocationStop, reason: StopReason) -> str:
    return f"stopped by {stop.signal.name}" if stop.signal else reason
