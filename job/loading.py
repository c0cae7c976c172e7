"""How what a process needs is loaded: nothing but Python itself is there yet."""

import contextlib
import gc
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around the imports that take long. Ctrl-C ends the process and shows no traceback: there is nothing yet to be ended in order.

    Python looks for no garbage meanwhile: an import leaves hardly any, and what there is of it is found later. That torch 2.14.1
    takes 1.28 s of processor time instead of 1.49 (an AMD EPYC, four each).
    """
    before, collected = signal.getsignal(signal.SIGINT), gc.isenabled()
    gc.disable()
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
        if collected:
            gc.enable()
