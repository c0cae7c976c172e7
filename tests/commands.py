"""Commands that stand first on PATH, a test's own: shell scripts for Slurm's, which answer what they are told to."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from slurm.scheduler.queue import Job


class Commands:
    """A folder of them, which is first on PATH. A quick test may start these, and no other process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._called, self._queue, self._shown = (folder / f".{name}" for name in ("called", "queue", "shown"))
        self._called.touch()

    def add(self, name: str, script: str = "") -> None:
        """Put a command there, or another one in its place."""
        path = self.folder / name
        note = f'echo "{name} $*" >> {shlex.quote(str(self._called))}'
        path.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """How they have been called, in order."""
        return self._called.read_text().splitlines()

    def queue(self, jobs: Iterable[Job] = ()) -> None:
        """Have squeue list some jobs; more may be added by `queued`."""
        self._queue.write_text("")
        self.add("squeue", f"cat {shlex.quote(str(self._queue))}")
        for job in jobs:
            self.queued(job)

    def queued(self, job: Job) -> None:
        """Have squeue list one more job."""
        starts = "N/A" if job.starts_at is None else f"{job.starts_at:.0f}"
        row = (job.job_id, job.number, job.submitted, job.state, job.reason, starts, job.node or "", job.command)
        with self._queue.open("a") as file:
            file.write("|".join(row) + "\n")

    def shows(self, *answers: Mapping[str, str] | None) -> None:
        """Have `scontrol show job` answer one after the other, and the last from then on; None: the controller is away.

        All else that is asked of scontrol it does, and says nothing.
        """
        self._shown.mkdir(exist_ok=True)
        for path in self._shown.iterdir():
            path.unlink()
        for number, fields in enumerate(answers):
            words = "" if fields is None else " ".join(f"{name}={value}" for name, value in fields.items())
            (self._shown / f"{number:03}").write_text(f"JobId=5 {words}\n" if fields is not None else "")
        self.add(
            "scontrol",
            f'case "$1 $2" in "show job") ;; "write batch_script") echo "#!/bin/sh"; exit ;; *) exit ;; esac\n'
            f"set -- {shlex.quote(str(self._shown))}/*\n"
            'content=$(cat "$1")\n'
            '[ $# = 1 ] || rm "$1"\n'
            '[ -n "$content" ] || { echo "Unable to contact slurm controller (connect failure)" >&2; exit 1; }\n'
            'echo "$content"',
        )
