"""One TCP connection, with or without NAT on its way, and its events sorted by where they were seen. Pure.

The client's packets have one header where they leave its socket, and another after each namespace that translates them;
the server's have the inverse of these. A connection through a Service has two: the client talks to the VIP, the node
turns that into talk to the endpoint. A packet's leg is read from its header alone, so it shows whether NAT has touched
it. Which connections a recording has is for `analysis/connections.py` to find.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

from netlab.model import Address
from netlab.record.domains import Port, Word
from netlab.record.events import (
    ACK,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    Datagram,
    Direction,
    EntryChange,
    Event,
    InvalidReason,
    Packet,
    Segment,
    SocketEvent,
    TraceStep,
    Tuple,
)
from netlab.record.wire import IPPROTO_TCP

CANARY_PORT = 1
"""Source port of the canaries (tcpmux: no kernel picks it for a connection)."""

Ends: TypeAlias = tuple[Address, int, Address, int]
"""Source, source port, destination, destination port."""


def ends(packet: Segment | Tuple) -> Ends:
    """The addresses and ports in a packet's header, or in one direction of a conntrack entry."""
    return (packet.src, packet.sport, packet.dst, packet.dport)


def inverse(header: Ends) -> Ends:
    """The header of what answers it."""
    return (header[2], header[3], header[0], header[1])


class Leg(StrEnum):
    """Where in the translation a packet stands; CANARY is a packet sent only to see whether the observers see it.

    The client's packets are on CLIENT_TO_VIP as the client sent them, and on CLIENT_TO_ENDPOINT once they have another
    destination or source; the server's are on ENDPOINT_TO_CLIENT until they are translated back for the client, then on
    VIP_TO_CLIENT. Where nothing translates, a packet is on both legs of its direction.
    """

    CLIENT_TO_VIP = "client-to-vip"
    CLIENT_TO_ENDPOINT = "client-to-endpoint"
    ENDPOINT_TO_CLIENT = "endpoint-to-client"
    VIP_TO_CLIENT = "vip-to-client"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Flow:
    """A TCP connection by the namespaces that hold its sockets, its addresses and ports.

    client_address and client_port are the client's socket's own, vip and port what it connected to; endpoint and
    target_port are the server's socket's own. node is the namespace that translates, the first on the client's side
    where several do; where none does, the first that tracks it; None where none tracks. server_node is the node that
    the server hangs on, which may be the same, or None. way are the headers that the client's packets have one after
    another, from the client's socket to the server's: one where nothing translates; left out where there is nothing but
    one new destination, or none.
    """

    client: Word
    node: Word | None
    server: Word
    server_node: Word | None
    client_address: Address
    client_port: Port
    vip: Address
    port: Port
    endpoint: Address
    target_port: Port
    way: tuple[Tuple, ...] = ()

    def inconsistency(self) -> str:
        """Of a flow read from a file: addresses of two families."""
        families = {address.version for address in (self.client_address, self.vip, self.endpoint)}
        families |= {header.src.version for header in self.way}
        return "" if len(families) == 1 else "its addresses are of two families"

    def headers(self) -> tuple[Ends, ...]:
        """The client's packets' headers, from the client's socket to the server's."""
        if self.way:
            return tuple(map(ends, self.way))
        client = (self.client_address, self.client_port)
        own, translated = (*client, self.vip, self.port), (*client, self.endpoint, self.target_port)
        return (own,) if own == translated else (own, translated)

    def between(self) -> tuple[Ends, ...]:
        """The headers seen within a namespace that translates first the destination, then the source, too."""
        headers = self.headers()
        mixed = ((*before[:2], *after[2:]) for before, after in pairwise(headers))
        return tuple(header for header in mixed if header not in headers)

    @property
    def peer(self) -> tuple[Address, int]:
        """The client's end as the server's socket sees it: another one than its own where it is masqueraded."""
        return self.headers()[-1][:2]

    @property
    def translated(self) -> bool:
        """Whether NAT has a part in it."""
        return len(self.headers()) > 1

    def header(self, leg: Leg) -> Ends:
        """The header on a leg; where several namespaces translate, the one at the server's end."""
        first, *_, last = (self.headers()[0], *self.headers())
        match leg:
            case Leg.CLIENT_TO_VIP:
                return first
            case Leg.CLIENT_TO_ENDPOINT:
                return last
            case Leg.ENDPOINT_TO_CLIENT:
                return inverse(last)
            case Leg.VIP_TO_CLIENT:
                return inverse(first)
            case Leg.CANARY:
                return (self.client_address, CANARY_PORT, self.vip, self.port)

    def translations(self) -> dict[Tuple, Tuple]:
        """The reply's tuple by the original one, as the namespace's conntrack has them that translates, if one does."""
        original, *others = self.headers()
        return {Tuple(*original, IPPROTO_TCP): Tuple(*inverse(header), IPPROTO_TCP) for header in others[:1]}

    def legs(self) -> dict[Ends, tuple[Leg, ...]]:
        """Legs of each header that belongs to this connection."""
        first, *others = self.headers()
        others += self.between()
        if not others:
            return {
                first: (Leg.CLIENT_TO_VIP, Leg.CLIENT_TO_ENDPOINT),
                inverse(first): (Leg.ENDPOINT_TO_CLIENT, Leg.VIP_TO_CLIENT),
                self.header(Leg.CANARY): (Leg.CANARY,),
            }
        return {
            **{inverse(header): (Leg.ENDPOINT_TO_CLIENT,) for header in others},
            **dict.fromkeys(others, (Leg.CLIENT_TO_ENDPOINT,)),
            inverse(first): (Leg.VIP_TO_CLIENT,),
            first: (Leg.CLIENT_TO_VIP,),
            self.header(Leg.CANARY): (Leg.CANARY,),
        }


def about_canary(datagram: Datagram) -> bool:
    """Whether it is an ICMP error about a canary: a host's answer to the observers, no part of what they observe."""
    about = datagram.about
    return about is not None and about.proto == IPPROTO_TCP and about.sport == CANARY_PORT


class FlowEvents:
    """The events of one connection, in the order of their times, found by where they were seen."""

    def __init__(self, flow: Flow, events: Iterable[Event]) -> None:
        self.flow = flow
        self.sockets: list[SocketEvent] = []
        self._packets: dict[tuple[str | None, Direction, Leg], list[Packet]] = defaultdict(list)
        self._reasons: dict[tuple[str | None, Leg], list[InvalidReason]] = defaultdict(list)
        self._verdicts: dict[str | None, list[TraceStep]] = defaultdict(list)
        self._entry_made = self._syn_traced = False
        # An address as a number is hashed many times faster.
        legs = {(int(src), sport, int(dst), dport): leg for (src, sport, dst, dport), leg in flow.legs().items()}
        in_order = sorted(events, key=lambda event: event.time_ns)
        self.last_ns = in_order[-1].time_ns if in_order else 0
        for event in in_order:
            if isinstance(event, SocketEvent):
                self.sockets.append(event)
            elif isinstance(event, ConntrackEvent):
                new = event.change is EntryChange.NEW
                made = new and event.netns == flow.node and self._begins(event.tuple_orig)
                self._entry_made = self._entry_made or made
            elif isinstance(event, TraceStep) and event.segment is not None:
                if (event.table, event.chain) == (TRACE_TABLE, TRACE_INVALID_CHAIN):
                    self._verdicts[event.netns].append(event)
                syn = event.netns == flow.node and event.segment.flags & SYN and self._begins(event.segment)
                self._syn_traced = self._syn_traced or bool(syn)
            if not isinstance(event, Packet | InvalidReason):
                continue
            for leg in _legs(legs, event.segment):
                if isinstance(event, Packet):
                    self._packets[event.netns, event.direction, leg].append(event)
                else:
                    self._reasons[event.netns, leg].append(event)

    def _begins(self, header: Tuple | Segment) -> bool:
        """Whether a header is that of the client's packets as the client sends them."""
        return ends(header) == self.flow.headers()[0]

    def entry_made(self) -> bool:
        """Whether conntrack told that it made the connection's entry."""
        return self._entry_made

    def syn_traced(self) -> bool:
        """Whether the client's SYN was seen on its way through the node's rules."""
        return self._syn_traced

    def packets(self, netns: str | None, direction: Direction, leg: Leg) -> list[Packet]:
        """Packets that interfaces of the namespace received or sent on that leg; none of no namespace."""
        return self._packets.get((netns, direction, leg), [])

    def reasons(self, netns: str | None, leg: Leg) -> list[InvalidReason]:
        """What the namespace's conntrack logged about packets on that leg."""
        return self._reasons.get((netns, leg), [])

    def logged(self, netns: str | None) -> set[InvalidReason]:
        """All that the namespace's conntrack logged about its packets."""
        return {reason for (where, _), found in self._reasons.items() if where == netns for reason in found}

    def verdicts(self, netns: str | None) -> list[TraceStep]:
        """The packets, of any connection, that a rule of the namespace found to be `ct state invalid`."""
        return self._verdicts.get(netns, [])

    def syn(self) -> Segment | None:
        """The client's SYN as it left the client."""
        for packet in self.packets(self.flow.client, Direction.OUT, Leg.CLIENT_TO_VIP):
            if packet.segment.flags & (SYN | ACK) == SYN:
                return packet.segment
        return None

    def syn_ack(self) -> Packet | None:
        """The server's SYN,ACK as it left the server."""
        for packet in self.packets(self.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT):
            if packet.segment.flags & SYN:
                return packet
        return None


def _legs(legs: dict[tuple[int, int, int, int], tuple[Leg, ...]], header: Tuple | Segment) -> tuple[Leg, ...]:
    return legs.get((int(header.src), header.sport, int(header.dst), header.dport), ())
