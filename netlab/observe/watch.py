"""All observers of one run together: opened in one place, waited for in one place, closed in one place."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from netlab.linux.deadlines import scaled
from netlab.observe import Observer
from netlab.record.events import Event
from netlab.record.observers import ObserverId

_TICK_S = 0.02
"""How long to wait for news at most: a change of TCP_INFO alone wakes nobody, should no observer see its packet."""


class Watch:
    """Observers of one run and the events they brought so far. It closes them when left.

    An observer that fails is left out from then on, and stays in `failed`. One thread drives it:
    `until` waits for packets, reasons and the given sockets at once.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._observers: dict[Observer, int] = {}  # each with its descriptor
        self._failed: dict[Observer, str] = {}
        self._events: list[Event] = []
        self._closing = ExitStack()
        self._closing.callback(self._selector.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def add(self, observer: Observer) -> None:
        """Take over an observer, which is ready: its events are gathered from now on."""
        self._observers[observer] = observer.fileno()
        self._closing.callback(observer.close)
        self._selector.register(observer.fileno(), selectors.EVENT_READ)

    def note(self, event: Event) -> None:
        """Add an event that came from elsewhere: a socket's."""
        self._events.append(event)

    def until(self, done: Callable[[], bool], timeout_s: float, wake_on: Iterable[socket.socket] = ()) -> bool:
        """Gather events until `done()`, which is asked again whenever an observer or a socket of `wake_on` has news.

        False if the time ran out first. A socket has news when it can be read, or has an error.
        """
        deadline = time.monotonic() + scaled(timeout_s)
        sockets = list(wake_on)
        for sock in sockets:
            self._selector.register(sock, selectors.EVENT_READ)
        try:
            while True:
                self._read()
                if done():
                    return True
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._selector.select(min(left_s, _TICK_S))
        finally:
            for sock in sockets:
                self._selector.unregister(sock)

    def gathered(self) -> tuple[Event, ...]:
        """The events gathered and not yet taken."""
        return tuple(self._events)

    def saw(self, matches: Callable[[Event], bool]) -> bool:
        """Whether an event that matches has been gathered and not yet taken."""
        return any(matches(event) for event in self._events)

    def take(self) -> tuple[tuple[Event, ...], tuple[tuple[ObserverId, int], ...]]:
        """The events gathered since the last time, and how many each observer lost meanwhile; 0 for one that failed."""
        self._read()
        events, self._events = tuple(self._events), []
        return events, tuple((observer.id, self._lost(observer)) for observer in self._observers)

    @property
    def failed(self) -> tuple[tuple[ObserverId, str], ...]:
        """The observers that could not be read any more, each with the reason; nothing is known of what they missed."""
        return tuple((observer.id, reason) for observer, reason in self._failed.items())

    def _read(self) -> None:
        for observer, descriptor in self._observers.items():
            if observer in self._failed:
                continue
            try:
                if observer.fileno() != descriptor:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                self._events.extend(observer.read())
            except OSError as error:
                self._give_up(observer, error)

    def _lost(self, observer: Observer) -> int:
        if observer not in self._failed:
            try:
                return observer.lost()
            except OSError as error:
                self._give_up(observer, error)
        return 0

    def _give_up(self, observer: Observer, error: OSError) -> None:
        """Go on without an observer. Its descriptor's number may be another file's soon."""
        self._failed[observer] = error.strerror or str(error)
        with suppress(KeyError):
            self._selector.unregister(self._observers[observer])
