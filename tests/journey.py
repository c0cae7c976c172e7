"""A run's journey: many interruptions one after the other, and one comparison of all bytes at its end.

Between two stages the run's process rests, some steps after its start, so that no machine is too slow or too quick for what is
asserted there, and no step is made that nobody needs. A failure names its stage.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import wait_until_still
from jobs import INTERVAL, LOGGED, ON_SLURM, Job, SlurmJob, small_settings

ENDLESS = 10**6  # steps: how far a run gets depends on the machine, and it is cut short at the end


class Journey:
    """One run, submitted with some options, and with a total that it never reaches until `finish` gives it one that it can.

    `segment` is the newest one that has trained, 0 before the first; `job_id` the newest job, `total` what it is to end with.
    """

    def __init__(self, job: Job, folder: Path, *options: str) -> None:
        self.job = job
        self.segment = 0
        self.job_id = ""
        self._options = options
        self._folder = folder
        self._at_start = folder / "at-start"
        job.slow_down()
        self.total = 0

    def submit(self, **changes: Any) -> None:
        """Submit it for good; its job's setup runs what `at_next_start` has left, and then that of the changes."""
        setup = [f"[ ! -e {shlex.quote(str(self._at_start))} ] || . {shlex.quote(str(self._at_start))}"]
        changes["slurm_setup"] = json.dumps([*setup, *changes.get("slurm_setup", [])])
        assert self.job.slurm("submit", *self._options, **{"max_steps": ENDLESS, **changes}) == 0, self.job.output
        match = re.search(r"^(?:as|it has already) +(?:job )?(\S+)", self.job.output, re.MULTILINE)
        assert match, self.job.output
        self.job_id = match[1]

    def at_next_start(self, text: str) -> None:
        """Have the batch script run some lines at the next start of the job, and at that one alone."""
        self._at_start.write_text(f"rm {shlex.quote(str(self._at_start))}\n{text}\n")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What a failure in the block is told with."""
        try:
            yield
        except BaseException as error:
            error.add_note(f"at the stage: {name}, after segment {self.segment} of job {self.job_id}")
            error.add_note(self.job.job_log()[-3000:])
            raise

    @contextlib.contextmanager
    def meets(
        self, name: str, reason: str | None, *, until_signalled: bool = False, beyond: int = LOGGED, most_lost: int = 0
    ) -> Iterator[int]:
        """A stage that ends a segment while its process rests so many steps after its start; another segment goes on.

        `reason` is what its `stopped` says, None where it did not live to write one. `until_signalled` leaves it at rest until
        Slurm has sent a signal, and SIGCONT with it. Gives the process id.
        """
        with self.stage(name):
            if beyond > LOGGED:
                self.train_on(beyond - LOGGED)
            process = self.job.process()
            yield process
            self.go_on(until_signalled=until_signalled)
            before = self.segment
            self.rest()
            assert [r["reason"] for r in self.job.events("stopped") if r["segment"] == before] == (
                [reason] * bool(reason)
            )
            assert 0 <= self.lost() <= most_lost

    def killed(self, name: str) -> contextlib.AbstractContextManager[int]:
        """A stage that the process does not survive, past its newest checkpoint."""
        return self.meets(name, None, beyond=INTERVAL + LOGGED, most_lost=INTERVAL + LOGGED)

    def lost(self) -> int:
        """The steps lost at the newest resume."""
        return int(self.job.events("resumed")[-1]["steps_lost"])

    def rest(self) -> None:
        """Stop the process of the next segment that trains once it has made some steps."""
        self.segment = self.job.wait_for_step_of(lambda record: record["segment"] > self.segment)["segment"]
        self._stop()

    def go_on(self, *, until_signalled: bool = False) -> None:
        """End the process's rest, or wait until a signal of Slurm's has."""
        self.job.let_go_on(self.job.process(), until_signalled=until_signalled)

    def train_on(self, steps: int = LOGGED) -> None:
        """Let the segment make some more steps, and stop its process again."""
        step = self.job.events("step")[-1]["step"] + steps
        self.go_on()
        self.job.wait_until_step(step, self.segment)
        self._stop()

    def finish(self, at_least: int = 100, **changes: Any) -> None:
        """Submit the run, which no process trains, with a total so many steps on."""
        self.total = self.job.status()["step"] + at_least
        self.submit(max_steps=self.total, **changes)

    def compare(self) -> None:
        """Wait for the end, and compare all that the run leaves with one of as many steps that nothing has interrupted."""
        with self.stage("the end"):
            if isinstance(self.job, SlurmJob):
                self.job.wait_until_finished(self.job_id)
            self.wait_for_state("finished")
            whole = Job(self._folder / "whole", small_settings(**{**ON_SLURM, "max_steps": self.total}))
            assert whole.run() == 0, whole.output
            assert self.job.traces() == whole.traces()

    def wait_for_state(self, state: str) -> None:
        """Wait until status.json says so."""
        deadline = time.monotonic() + 150
        while self.job.status()["state"] != state:
            assert time.monotonic() < deadline, f"not {state}, but {self.job.status()}"
            time.sleep(0.05)

    def _stop(self) -> None:
        process = self.job.process()
        os.kill(process, signal.SIGSTOP)
        wait_until_still(process)
