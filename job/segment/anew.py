"""A process that begins anew in its own place: what of the GPU is left half open ends with it, and the job notices nothing."""

import os
import signal
import sys
import threading
from typing import NoReturn

from job.errors import GraphError
from job.segment.signals import Signals

NO_GRAPH = "_AAE_NO_CUDA_GRAPH"  # why the process that began anew records no graph


def start_anew(stop: Signals, error: GraphError) -> NoReturn:
    """Begin again with the same command line and without CUDA graphs; the claim has been released.

    Signals that have come or are to come are served by the new beginning: they wait, blocked, which an exec leaves as it is.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stop.ASKING, signal.SIGINT})
    print(f"{error}; starting anew without", flush=True)
    sys.stderr.flush()
    os.environ[NO_GRAPH] = str(error)
    for number in stop.came:
        # To this thread: one for the process may be taken by another, which does not block it, and be lost with that.
        signal.pthread_kill(threading.get_ident(), number)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very program
