"""The one thing that a job asks of Slurm: to be started again."""

import subprocess
import time

REQUEUE_FOR_S = 300.0  # how long an absent controller is asked, while the allocation lasts
REQUEUE_WAIT_S = 5.0
REQUEUE_REFUSALS = 3  # a refusal in words is asked again only so often


def requeue(job_id: str) -> str | None:
    """Ask Slurm to start this job again, which soon ends this process; returns why it does not, after several attempts."""
    deadline = time.monotonic() + REQUEUE_FOR_S
    refusals = 0
    while True:
        try:
            done = subprocess.run(  # noqa: S603
                ["scontrol", "requeue", job_id],  # noqa: S607
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.returncode == 0:
                return None
            words = (done.stderr or done.stdout).strip()
        except subprocess.TimeoutExpired:
            words = "scontrol timed out"
        except OSError as error:
            return f"scontrol cannot be run here: {error}"
        if not any(part in words.lower() for part in ("unable to contact", "timed out", "connect failure")):
            refusals += 1
        if refusals >= REQUEUE_REFUSALS or time.monotonic() > deadline:
            return words
        time.sleep(REQUEUE_WAIT_S)
