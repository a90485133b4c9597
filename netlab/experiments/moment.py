"""What a condition looks at, and what it may ask. Pure: the context, which asks the kernel, is a `Live`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from netlab.analysis.result import Evidence, Proof
from netlab.record.events import Direction, Event
from netlab.record.flow import FlowEvents, Leg
from netlab.record.observers import ObserverId, ObserverKind


class TransferState(Protocol):
    """How far a sender has come, by TCP_INFO."""

    @property
    def unacked(self) -> int: ...
    @property
    def notsent_bytes(self) -> int: ...
    @property
    def snd_wnd_bytes(self) -> int: ...
    @property
    def snd_mss_bytes(self) -> int: ...


class EndState(Protocol):
    """One end's program as it stands."""

    name: str
    netns: str
    intact: bool
    received_bytes: int

    def transfer_state(self) -> TransferState:
        """What the kernel says of its socket now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How a connection's entry stands: conntrack's TCP state, whether packets came both ways, whether it is ASSURED."""

    tcp_state: str
    replied: bool
    assured: bool


class Live(Protocol):
    """What the kernel and the programs are asked while a trial runs; NotApplied where an end isn't there."""

    def end(self, end: str, connection: str = ..., /) -> EndState: ...

    def counted(self, netns: str, name: str, /) -> int | None:
        """How far a counter has gone since the trial began; None where there is none of that name."""

    def entry(self, netns: str, connection: str = ..., /) -> Entry | None:
        """The connection's entry in a namespace's conntrack; None where there is none."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The trial's events so far, in the order of their times, and when the condition's step began.

    flow_events are those of the connection under study, or of the first one before there is it; None without any. load
    are those of each connection of a load. live is None once the trial is over. whole is None as long as what is
    missing may still come; afterwards it has the observers that were open, to the end, and lost nothing.
    """

    events: tuple[Event, ...]
    flow_events: FlowEvents | None
    since_ns: int
    live: Live | None
    load: tuple[FlowEvents, ...] = ()
    whole: frozenset[ObserverId] | None = None

    def connections(self) -> tuple[FlowEvents, ...]:
        """The events of each connection: of a load's, or of the one under study."""
        return self.load or ((self.flow_events,) if self.flow_events is not None else ())

    def since(self) -> tuple[Event, ...]:
        """The events since the step began."""
        return tuple(event for event in self.events if event.time_ns >= self.since_ns)

    def of_what_crossed(self, netns: str) -> Moment:
        """The same; where no segment of the connection came there since, its conntrack's silence proves nothing."""
        packets = chain.from_iterable(
            events.packets(netns, direction, leg)
            for events in self.connections()
            for direction in Direction
            for leg in Leg
            if leg is not Leg.CANARY
        )
        return self if any(packet.time_ns >= self.since_ns for packet in packets) else replace(self, whole=None)

    def would_have_seen(self, kind: ObserverKind, netns: str) -> bool:
        """Whether the time is over, and the namespace's observers of that kind told all that they saw."""
        return self.whole is not None and any((each.kind, each.netns) == (kind, netns) for each in self.whole)

    def proof(self, what: str, seen: list[Evidence], kind: ObserverKind, netns: str, count: int = 1) -> Proof:
        """Whether something was seen so often, or more, and never with 0; what is a noun phrase.

        Where it wasn't, kind of netns are the observers that would have seen it.
        """
        if count == 0 and seen:
            refuted = f"no {_bare(what)}; saw {len(seen)}"
            return Proof((), f"no {_bare(what)} ({len(seen)} seen)", refuted=refuted)
        if len(seen) >= count:
            return Proof(tuple(seen[:1]))
        times = f"{count} times " if count > 1 else ""
        missing = f"{times}{what}{f' ({len(seen)} seen)' if seen else ''}"
        refuted = f"{times}{what}; saw {len(seen) or 'none'}" if self.would_have_seen(kind, netns) else ""
        return Proof((), missing, refuted=refuted)


def _bare(what: str) -> str:
    """A noun phrase without its article."""
    return what.removeprefix("a ").removeprefix("an ")


NO_CONNECTION = Proof((), "a connection whose packets can be told")
"""What a condition on packets is missing before there is a connection."""
