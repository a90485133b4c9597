"""A bound on what may never end by itself, such as a regular expression of a user's on some text.

The `re` module looks for signals while it goes back and forth, and so does every loop in Python.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds, in the midst of what is done: it is for work that has no effects.

    In the main thread only. A timer of the caller's goes on afterwards.
    """
    over = False

    def end(_number: int, _frame: object) -> None:
        if not over:
            raise TimeoutError(f"it takes longer than {seconds:g} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, end)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))
