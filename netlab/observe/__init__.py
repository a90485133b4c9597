"""Observers: each file one source of events from the kernel.

An observer is ready when its constructor returns: bound, subscribed, filtered. It never blocks, counts what it lost,
and leaves the kernel as it found it when closed. What the events prove is `analysis/judge.py`'s to say.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from netlab.record.events import Event
from netlab.record.observers import ObserverId


class Namespaces(Protocol):
    """What observing needs of a lab's namespaces; `netlab.lab.netns.Namespaces` has it."""

    def inside(self, name: str, /) -> AbstractContextManager[None]:
        """The calling thread is in the namespace meanwhile, and back afterwards."""

    def socket(self, name: str, family: int, kind: int, proto: int = 0, /) -> socket.socket:
        """A socket that belongs to the namespace, wherever it is used."""


class Observer(Protocol):
    """One source of events, known by its id."""

    id: ObserverId

    def fileno(self) -> int:
        """The descriptor that is readable when events wait."""

    def read(self) -> Sequence[Event]:
        """The events that wait, in the order they came; empty if there are none."""

    def lost(self) -> int:
        """How many events the kernel could not deliver since this was last asked."""

    def close(self) -> None:
        """Stop observing, and put back what was changed for it."""
