"""The connections that a flow has had, one after another: a client may use the same port again. Pure.

Each begins with a SYN of the client's that has a number of its own. What is left of the one before, at the server or in
conntrack, may answer it, and is refused by a RST of the client's before the handshake is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netlab.analysis.timeline import Fate, Journey
from netlab.record.events import ACK, RST, SYN, Direction
from netlab.record.flow import Flow


@dataclass(frozen=True, slots=True)
class Life:
    """One connection. journeys are its packets in order; earlier how many of the flow's packets came before it.

    until_ns is when the next one begins, None for the last.
    """

    flow: Flow
    journeys: tuple[Journey, ...]
    earlier: int = 0
    until_ns: int | None = None

    def has(self, time_ns: int) -> bool:
        """Whether the moment is in this connection's time."""
        begun = not self.earlier or self.journeys[0].time_ns <= time_ns
        return begun and (self.until_ns is None or time_ns < self.until_ns)

    def refusals(self) -> tuple[Journey, ...]:
        """The client's RSTs to what an earlier connection answered its SYN with; they are not the end of this one."""
        if not self.journeys or not _is_syn(self.journeys[0]):
            return ()
        syn = self.journeys[0].segment
        opened_ns = next(
            (
                arrived.time_ns
                for journey in self.journeys
                if not journey.to_server and journey.segment.flags & (SYN | ACK) == SYN | ACK
                if journey.segment.ack == syn.end and (arrived := journey.at(self.flow.client, Direction.IN))
            ),
            None,
        )
        return tuple(
            journey
            for journey in self.journeys
            if journey.to_server and journey.segment.flags & (RST | ACK) == RST
            if opened_ns is None or journey.time_ns < opened_ns
        )

    def resets(self) -> list[Journey]:
        """The RSTs that came to an end of this connection."""
        refused = self.refusals()
        return [
            journey
            for journey in self.journeys
            if journey.segment.flags & RST and journey.fate is Fate.DELIVERED and journey not in refused
        ]


def lives(flow: Flow, journeys: Sequence[Journey]) -> list[Life]:
    """The flow's connections in order; one at least. Packets before the first SYN belong to the first."""
    starts = [0]
    number: int | None = None
    for index, journey in enumerate(journeys):
        if _is_syn(journey) and journey.segment.seq != number:
            if number is not None:
                starts.append(index)
            number = journey.segment.seq
    ends = [*starts[1:], len(journeys)]
    return [
        Life(flow, tuple(journeys[start:end]), start, journeys[end].time_ns if end < len(journeys) else None)
        for start, end in zip(starts, ends, strict=True)
    ]


def _is_syn(journey: Journey) -> bool:
    return journey.to_server and journey.segment.flags & (SYN | ACK) == SYN
