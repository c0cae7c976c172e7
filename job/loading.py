"""How what a process needs is loaded: nothing but Python itself is there yet."""

import contextlib
import gc
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around the imports that take long. Ctrl-C ends the process and shows no traceback: there is nothing yet to be ended in order.

    Python looks for no garbage meanwhile: an import leaves hardly any, and the search takes a tenth of the time that torch does.
    What there is of it is found later.
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
