"""One timeline of a recording: its events merged, and each packet followed from interface to interface. Pure.

A Journey is one packet on its way: the interfaces it crossed, how NAT rewrote it, what conntrack and the rules made of
it, and where it ended. A packet is recognised by what neither NAT nor forwarding changes: sequence numbers, flags,
length, window, IP identification, timestamps. A retransmission is a packet of its own. Where several packets look
alike and not all of them arrive, which one did is not guessed: the journeys say that they are ambiguous.

What is drawn or said of it is left to others (`explain.py`, `report/`).
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from netlab import window
from netlab.errors import NetlabError
from netlab.events import (
    ACK,
    FIN,
    REASON_ACCURACY_NS,
    SYN,
    ConntrackEvent,
    Direction,
    Event,
    InvalidReason,
    Packet,
    Segment,
    TraceStep,
    Tuple,
    seq_diff,
)
from netlab.flow import CANARY_PORT, Flow
from netlab.model import Address, Topology
from netlab.recording import Recording
from netlab.window import Checked, CtOutcome, Differs, Disagreement, Rules

ACCURACY = (
    "packets: the kernel's stamp at the interface, in nanoseconds",
    "conntrack's reasons: the kernel's stamp, cut off to microseconds, so up to 1 us early",
    "everything else: the moment it was read, so it can only be late",
)
"""How good each time in a timeline is; all are of one clock."""

Ends = tuple[Address, int, Address, int]
"""Source, source port, destination, destination port."""


class Fate(StrEnum):
    """Where a packet ended: at the other end's namespace, at a rule that dropped it, or nobody saw where."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A packet at one interface. parts are the packets seen there: one, or the segments that GSO split it into."""

    netns: str
    ifname: str
    direction: Direction
    parts: tuple[Packet, ...]

    @property
    def time_ns(self) -> int:
        """When the first part crossed."""
        return self.parts[0].time_ns

    @property
    def ends(self) -> Ends:
        """The addresses the packet had here."""
        return ends(self.parts[0].segment)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """NAT in one namespace: the addresses before and after it."""

    netns: str
    before: Ends
    after: Ends


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What the window model makes of a packet in one namespace, and what the kernel logged there."""

    netns: str
    checked: Checked
    reasons: tuple[InvalidReason, ...] = ()

    @property
    def invalid(self) -> bool:
        """Whether the packet is INVALID there, by the model, or by the log where it isn't modelled."""
        return self.checked.outcome is CtOutcome.INVALID


@dataclass(frozen=True, slots=True)
class Journey:
    """One packet's way. number counts the recording's packets, from 1, by the time at which each was first seen.

    to_server: its direction, whoever it is addressed to. trace are the rules it came through. copy_of is the number of
    the packet that carried its first byte before, for a retransmission. ambiguous says why it may not be told from
    another packet, empty where it can.
    """

    number: int
    flow: Flow
    to_server: bool
    crossings: tuple[Crossing, ...]
    fate: Fate
    rewrites: tuple[Rewrite, ...] = ()
    reasons: tuple[InvalidReason, ...] = ()
    trace: tuple[TraceStep, ...] = ()
    checks: tuple[NodeCheck, ...] = ()
    copy_of: int | None = None
    ambiguous: str = ""

    @property
    def segment(self) -> Segment:
        """The packet as it was first seen."""
        return self.crossings[0].parts[0].segment

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.crossings[0].time_ns

    @property
    def last(self) -> Crossing:
        """Where it was last seen."""
        return self.crossings[-1]

    def at(self, netns: str, direction: Direction) -> Crossing | None:
        """The first interface of the namespace that received or sent it; None if none did."""
        for crossing in self.crossings:
            if crossing.netns == netns and crossing.direction is direction:
                return crossing
        return None

    @property
    def untranslated(self) -> bool:
        """Whether it reached the client with the endpoint's own address as source."""
        if self.to_server:
            return False
        arrived = self.at(self.flow.client, Direction.IN)
        return arrived is not None and arrived.ends[0] == self.flow.endpoint != self.flow.vip


@dataclass(frozen=True)
class Timeline:
    """A recording in order. flows are the recording's, and those that its conntrack events and packets show besides.

    events are all of its events by time. loose are reasons about packets of these flows that no interface saw.
    unheld says of which namespaces the kernel's log was not compared with the model, and why.
    """

    recording: Recording
    flows: tuple[Flow, ...]
    journeys: tuple[Journey, ...]
    events: tuple[Event, ...]
    loose: tuple[InvalidReason, ...] = ()
    disagreements: tuple[tuple[int, Disagreement], ...] = ()
    unheld: tuple[str, ...] = ()

    @cached_property
    def _of(self) -> dict[Flow, list[Journey]]:
        journeys: dict[Flow, list[Journey]] = defaultdict(list)
        for journey in self.journeys:
            journeys[journey.flow].append(journey)
        return journeys

    def of(self, flow: Flow) -> Sequence[Journey]:
        """The packets of one flow, in the order in which they were first seen."""
        return self._of.get(flow, [])


def ends(packet: Segment | Tuple) -> Ends:
    """The addresses and ports in a packet's header, or in one direction of a conntrack entry."""
    return (packet.src, packet.sport, packet.dst, packet.dport)
