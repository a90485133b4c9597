"""When to end a watch that waits for a reset."""

from __future__ import annotations

import time
from collections.abc import Iterable

from netlab.record.events import RST, Event, Packet

_AFTER_RESET_S = 1.0
"""How long to go on after a RST: the other end learns of it only when it next says something."""


class UntilReset:
    """Waits for the first RST; with a flow, given as one end's ADDRESS:PORT, for one of that flow."""

    def __init__(self, flow: str | None = None) -> None:
        self._end = flow.replace("[", "").replace("]", "") if flow else None
        self._until = float("inf")

    def look(self, events: Iterable[Event]) -> None:
        """Take note of these events."""
        for event in events:
            if isinstance(event, Packet) and event.segment.flags & RST and self._until == float("inf"):
                segment = event.segment
                ends = (f"{segment.src}:{segment.sport}", f"{segment.dst}:{segment.dport}")
                if self._end is None or self._end in ends:
                    self._until = time.monotonic() + _AFTER_RESET_S

    def seen(self) -> bool:
        """Whether it came."""
        return self._until < float("inf")

    def over(self) -> bool:
        """Whether it came, and the other end has had time to learn of it."""
        return time.monotonic() > self._until
