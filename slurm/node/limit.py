"""When the allocation ends, which may change while it lasts: somebody moves the limit, or suspends and resumes the job."""

import time
from collections.abc import Mapping

from slurm.scheduler.queue import GOES_ON, show_job

ASK_EVERY_S = 600.0


class Limit:
    """The end of the allocation, in seconds since the epoch; None if there is no limit, or no answer."""

    def __init__(self, job_id: str, environment: Mapping[str, str]) -> None:
        self._job_id = job_id
        told = environment.get("SLURM_JOB_END_TIME", "")
        self.end = float(told) if told.isdigit() else None
        self._asked = time.monotonic()
        if self.end is None:
            self.ask()

    def ask(self) -> None:
        """Ask Slurm; what was known stands where it does not answer.

        It stands, too, where the job is being ended: `EndTime` is then this very moment, and the SIGTERM that comes along with
        the SIGCONT has another meaning than the end of the time.
        """
        self._asked = time.monotonic()
        job = show_job(self._job_id) or {}
        end = job.get("EndTime", "")
        if end and job.get("JobState") in GOES_ON:
            self.end = float(end) if end.isdigit() else None

    def is_near(self, margin_s: float, *, look_anew: bool) -> bool:
        """Whether less than the margin is left; asked anew where that may have changed, and before it is believed."""
        if look_anew or time.monotonic() - self._asked > ASK_EVERY_S:
            self.ask()
        if self.end is None or time.time() <= self.end - margin_s:
            return False
        self.ask()
        return self.end is not None and time.time() > self.end - margin_s
