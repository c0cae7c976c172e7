"""What submitit pickles: one path. It is unpickled on the node before anything heavy is loaded."""

import os
import sys


class Task:
    """The job as submitit calls it; light, so that unpickling it takes no time in which a signal could be lost."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def __call__(self) -> None:
        """Run one segment; leaves with its exit code by SystemExit unless the run is finished."""
        from job.output import install, wait_for_no_reader
        from slurm.node.segment import run_submitted

        install()
        wait_for_no_reader()
        code = run_submitted(self.run_dir, os.environ)
        if code != 0:
            sys.exit(code)
