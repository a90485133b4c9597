"""One packet on its way: the interfaces it crossed, how NAT rewrote it, what was said of it, where it ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from netlab.conntrack.agreement import BAD_CHECKSUM
from netlab.conntrack.values import Checked, CtOutcome
from netlab.model import Topology
from netlab.record.events import (
    ACK,
    RST,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    Direction,
    InvalidReason,
    Packet,
    Segment,
    TraceStep,
    seq_diff,
)
from netlab.record.flow import Ends, Flow, ends

Place = tuple[str, str, Direction]
"""An interface and a direction: (netns, ifname, direction)."""


class Fate(StrEnum):
    """Where a packet ended: in the namespace that it was for, at a rule that dropped it, or nobody saw where."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Hop:
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
    """NAT in one namespace: the addresses before and after it. netns is empty where it happened out of sight."""

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
class PacketPath:
    """One packet's way. number counts the recording's packets, from 1, by the time at which each was first seen.

    to_server: its direction, whoever it is addressed to. trace are the rules it came through. copy_of is the number of
    the packet that carried its first byte before, for a retransmission. ambiguous says why it may not be told from
    another packet, empty where it can.
    """

    number: int
    flow: Flow
    to_server: bool
    hops: tuple[Hop, ...]
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
        return self.hops[0].parts[0].segment

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.hops[0].time_ns

    @property
    def last(self) -> Hop:
        """Where it was last seen."""
        return self.hops[-1]

    def at(self, netns: str, direction: Direction) -> Hop | None:
        """The first interface of the namespace that received or sent it; None if none did."""
        for hop in self.hops:
            if hop.netns == netns and hop.direction is direction:
                return hop
        return None

    def called_invalid(self, netns: str) -> bool:
        """Whether the kernel's rules saw it as INVALID there: it matched `ct state invalid` on its way."""
        return called_invalid(self.trace, netns)

    @property
    def is_reset(self) -> bool:
        """Whether it is a RST."""
        return bool(self.segment.flags & RST)

    @property
    def corrupt(self) -> bool:
        """Whether conntrack found its checksum wrong: then no host takes it (tcp_v4_rcv(), net/ipv4/tcp_ipv4.c)."""
        return any(BAD_CHECKSUM in reason.text for reason in self.reasons)


def called_invalid(trace: Iterable[TraceStep], netns: str) -> bool:
    """Whether a packet that came through these rules matched `ct state invalid` in the namespace."""
    return any(
        (step.netns, step.table) == (netns, TRACE_TABLE) and step.chain.startswith(TRACE_INVALID_CHAIN)
        for step in trace
    )


def window_probes(paths: Iterable[PacketPath]) -> frozenset[int]:
    """The numbers of the packets of one flow by which an end asks whether the other's closed window is open again.

    They carry nothing, and have the last number that was sent (tcp_xmit_probe_skb(), net/ipv4/tcp_output.c).
    """
    found: set[int] = set()
    sent: dict[bool, int] = {}
    closed = {True: False, False: False}
    for path in paths:
        segment, way = path.segment, path.to_server
        bare = segment.flags == ACK and not segment.payload_bytes
        if bare and closed[not way] and way in sent and seq_diff(segment.seq, sent[way]) == -1:
            found.add(path.number)
        if not segment.flags & RST:
            closed[way] = segment.window == 0
            if segment.flags & SYN or way not in sent or seq_diff(segment.end, sent[way]) > 0:
                sent[way] = segment.end
    return frozenset(found)


def bridge_ports(topology: Topology | None) -> dict[tuple[str, str], str]:
    """The bridge of each interface that is a port of one, by (netns, ifname)."""
    interfaces = topology.interfaces() if topology is not None else ()
    return {(end.netns, end.ifname): end.master for end in interfaces if end.master is not None}


def bridged(places: Sequence[Place], ports: Mapping[tuple[str, str], str]) -> bool:
    """Whether a packet with these places in one namespace came and left by ports of a bridge that never had it itself.

    ports has the bridge of each interface, by (netns, ifname), that is a port of one.
    """
    came = [bridge for netns, ifname, way in places if way is Direction.IN and (bridge := ports.get((netns, ifname)))]
    left = [bridge for netns, ifname, way in places if way is Direction.OUT and (bridge := ports.get((netns, ifname)))]
    return bool(came) and came[:1] == left[-1:] and all(ifname != came[0] for _, ifname, _ in places)
