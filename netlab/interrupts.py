"""Ctrl-C and its like: when they stop a command, and when they must wait.

SIGINT, SIGTERM and SIGHUP become KeyboardInterrupt while something is made that must be taken back. A forked child of
ours must never raise it: it would run its parent's clean-up a second time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_HEARD = tuple(
    number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) is not signal.SIG_IGN  # nohup, or a background job of a shell without job control
)
_MASK = signal.pthread_sigmask(signal.SIG_BLOCK, ())


def stop_on_signals() -> None:
    """From now on they raise KeyboardInterrupt, but for those that this process was started to ignore."""
    for number in _HEARD:
        signal.signal(number, signal.default_int_handler)


def too_late() -> None:
    """From now on they are ignored: what the command was to make is made."""
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """They are lost meanwhile: a second Ctrl-C doesn't stop the taking back."""
    before = {number: signal.getsignal(number) for number in _HEARD}
    for number in _HEARD:
        signal.signal(number, lambda _number, _frame: None)  # not SIG_IGN, which the programs started would keep
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back(*more: signal.Signals) -> Iterator[None]:
    """They (and more) wait meanwhile, and arrive at the end: so something can be made and written down at one go."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_HEARD, *more})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork() -> int:
    """fork(2), whose child is ended by them, silently, instead of raising KeyboardInterrupt."""
    with held_back():
        pid = os.fork()
        if pid:
            return pid
        for number in _HEARD:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _MASK)
    return 0
