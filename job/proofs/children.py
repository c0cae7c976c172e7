"""Work in a process of its own, which leaves nothing behind in this one or on the GPU."""

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from job.errors import AaeError


def context() -> ForkServerContext:
    """Where such processes come from: forks of one that has loaded torch, and has computed nothing and met no GPU.

    That one is started as with `python -P`, or a job.py in the working directory would take this project's place in it.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["job.proofs.bench_modes"])
    return context


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module answers in a new process; raises AaeError if that ends without an answer."""
    ours, theirs = context().Pipe()
    process = context().Process(target=_answer, args=(theirs, partial(work, *arguments)))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError as error:
        raise AaeError("a process that measures has ended; what it said is above") from error
    finally:
        process.kill()
        process.join()


def _answer(connection: Connection, work: Callable[[], Any]) -> None:
    connection.send(work())
