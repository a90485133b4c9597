"""Ctrl-C and its like: when they stop a command, and when they must wait.

SIGINT, SIGTERM and SIGHUP raise Interrupted while something is made that must be taken back; the first one counts. A
forked child (`children.py`) forgets all that.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

_HEARD = tuple(
    number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) is not signal.SIG_IGN  # nohup, or a background job of a shell without job control
)
_MASK = signal.pthread_sigmask(signal.SIG_BLOCK, ())


class Interrupted(SystemExit):
    """One of them came. asyncio, in which pyroute2 waits, lets no other exception out of its loop but this kind and
    KeyboardInterrupt, and that one typer would swallow without a word."""

    def __init__(self) -> None:
        super().__init__(130)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    for number in _HEARD:  # a second one would come before the clean-up has begun
        signal.signal(number, _lose)
    raise Interrupted


def _lose(_number: int, _frame: object) -> None:
    """Not SIG_IGN, which the programs that are started meanwhile would keep."""


def stop_on_signals() -> None:
    """From now on they raise Interrupted, but for those that this process was started to ignore."""
    for number in _HEARD:
        signal.signal(number, _interrupt)


def too_late() -> None:
    """From now on they are ignored: what the command was to make is made."""
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """They are lost meanwhile: a second Ctrl-C doesn't stop the taking back, nor a system call of it (EINTR)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        yield
    finally:
        while signal.sigtimedwait(_HEARD, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def as_news() -> Iterator[socket.socket]:
    """Meanwhile the first of them raises nothing: the socket is readable once it has come. A second one raises.

    For a command that waits, and that has something to bring to its end first.
    """
    before = {number: signal.getsignal(number) for number in _HEARD}
    news, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def arrived(_number: int, _frame: object) -> None:
        stop_on_signals()

    with news, wakeup:
        former = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number in _HEARD:
            signal.signal(number, arrived)
        try:
            yield news
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former)


@contextmanager
def held_back(*more: signal.Signals) -> Iterator[None]:
    """They (and more) wait meanwhile, and arrive at the end: so something can be made and written down at one go."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_HEARD, *more})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def let_through() -> Iterator[None]:
    """Within `held_back`: meanwhile they raise Interrupted again.

    One that comes between the opening of something and the block that closes it, or while it is closed, would leave it
    open. So: `with held_back(), something(), let_through():`, where it can come within `something` alone.
    """
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_HEARD} - _MASK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def arrive() -> None:
    """Within `held_back`: those that wait raise Interrupted here."""
    with let_through():
        pass


def forget_in_child(*, held_back: bool) -> None:
    """In a forked child: from now on it is ended by them, silently, instead of raising Interrupted.

    held_back: they still wait, as they did when it was forked.
    """
    for number in _HEARD:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)  # of `as_news`: the parent's news, not the child's
    if not held_back:
        signal.pthread_sigmask(signal.SIG_SETMASK, _MASK)
