"""How long netlab waits, and a bound on what may never end by itself.

Deadlines are chosen for a fast machine, and are longer on a slow one, such as an emulated guest.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

SLOWER = "NETLAB_LAB_SLOWER"
"""The environment's variable that says how many times as slow this machine is; what boots a guest measures it there."""


def scaled(seconds: float) -> float:
    """A deadline of so many seconds on this machine."""
    return seconds * _factor()


@cache
def _factor() -> float:
    try:
        return max(1.0, min(float(os.environ.get(SLOWER, "1")), 1000.0))
    except ValueError:
        return 1.0


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds, scaled, in the midst of what is done: it is for work that has no effects.

    In the main thread only. A timer of the caller's goes on afterwards. It interrupts a regular expression of a user's:
    the `re` module looks for signals while it goes back and forth, and so does every loop in Python.
    """
    over = False

    def end(_number: int, _frame: object) -> None:
        if not over:
            raise TimeoutError(f"it takes longer than {seconds:g} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, end)
    left, _ = signal.setitimer(signal.ITIMER_REAL, scaled(seconds))
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))
