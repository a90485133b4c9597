"""One connection through a Service, and its events sorted by where they were seen. Pure.

A connection through DNAT has four legs: the client talks to the VIP, the node turns that into talk to the endpoint,
the endpoint answers, and the node turns the answer into the VIP's. A packet's leg is read from its addresses alone, so
it shows whether NAT has touched it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from netlab.model import Address, Topology
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


class Leg(StrEnum):
    """Where in the translation a packet stands; CANARY is a packet sent only to see whether the observers see it."""

    CLIENT_TO_VIP = "client-to-vip"
    CLIENT_TO_ENDPOINT = "client-to-endpoint"
    ENDPOINT_TO_CLIENT = "endpoint-to-client"
    VIP_TO_CLIENT = "vip-to-client"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Flow:
    """A TCP connection by its namespaces (client, the node that translates, server), addresses and ports.

    server_node is the node that the server hangs on, which may be the same, or None. endpoint and target_port are the
    server's own, vip and port what the client connected to.
    """

    client: str
    node: str
    server: str
    server_node: str | None
    client_address: Address
    client_port: int
    vip: Address
    port: int
    endpoint: Address
    target_port: int

    def legs(self) -> dict[tuple[Address, int, Address, int], Leg]:
        """Leg of each (source, source port, destination, destination port) that belongs to this connection."""
        client = (self.client_address, self.client_port)
        vip, endpoint = (self.vip, self.port), (self.endpoint, self.target_port)
        return {
            (*client, *vip): Leg.CLIENT_TO_VIP,
            (*client, *endpoint): Leg.CLIENT_TO_ENDPOINT,
            (*endpoint, *client): Leg.ENDPOINT_TO_CLIENT,
            (*vip, *client): Leg.VIP_TO_CLIENT,
            (self.client_address, CANARY_PORT, *vip): Leg.CANARY,
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
        self._packets: dict[tuple[str, Direction, Leg], list[Packet]] = defaultdict(list)
        self._reasons: dict[tuple[str, Leg], list[InvalidReason]] = defaultdict(list)
        self._verdicts: dict[str, list[TraceStep]] = defaultdict(list)
        self._adopted: dict[str, list[ConntrackEvent]] = defaultdict(list)
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
                if new and _leg(legs, event.tuple_orig) is Leg.ENDPOINT_TO_CLIENT:
                    self._adopted[event.netns].append(event)
                made = new and event.netns == flow.node and self._begins(event.tuple_orig)
                self._entry_made = self._entry_made or made
            elif isinstance(event, TraceStep) and event.segment is not None:
                if (event.table, event.chain) == (TRACE_TABLE, TRACE_INVALID_CHAIN):
                    self._verdicts[event.netns].append(event)
                syn = event.netns == flow.node and event.segment.flags & SYN and self._begins(event.segment)
                self._syn_traced = self._syn_traced or bool(syn)
            if not isinstance(event, Packet | InvalidReason):
                continue
            segment = event.segment
            leg = _leg(legs, segment)
            if leg is None:
                continue
            if isinstance(event, Packet):
                self._packets[event.netns, event.direction, leg].append(event)
            else:
                self._reasons[event.netns, leg].append(event)

    def _begins(self, header: Tuple | Segment) -> bool:
        """Whether a header is that of the client's packets to the VIP."""
        flow = self.flow
        to_vip = (flow.client_address, flow.client_port, flow.vip, flow.port)
        return (header.src, header.sport, header.dst, header.dport) == to_vip

    def entry_made(self) -> bool:
        """Whether conntrack told that it made the connection's entry."""
        return self._entry_made

    def syn_traced(self) -> bool:
        """Whether the client's SYN was seen on its way through the node's rules."""
        return self._syn_traced

    def packets(self, netns: str, direction: Direction, leg: Leg) -> list[Packet]:
        """Packets that interfaces of the namespace received or sent on that leg."""
        return self._packets.get((netns, direction, leg), [])

    def reasons(self, netns: str, leg: Leg) -> list[InvalidReason]:
        """What the namespace's conntrack logged about packets on that leg."""
        return self._reasons.get((netns, leg), [])

    def verdicts(self, netns: str) -> list[TraceStep]:
        """The packets, of any connection, that a rule of the namespace found to be `ct state invalid`."""
        return self._verdicts.get(netns, [])

    def adopted(self, netns: str) -> list[ConntrackEvent]:
        """The entries that the namespace's conntrack made anew for a packet of the endpoint's, as if it began there."""
        return self._adopted.get(netns, [])

    def syn(self) -> Segment | None:
        """The client's SYN as it left the client."""
        for packet in self.packets(self.flow.client, Direction.OUT, Leg.CLIENT_TO_VIP):
            if packet.segment.flags & (SYN | ACK) == SYN:
                return packet.segment
        return None

    def initial_numbers(self, netns: str) -> list[int]:
        """The sequence numbers of the SYNs that left the client or the server; several where a port was used again."""
        leg = Leg.CLIENT_TO_VIP if netns == self.flow.client else Leg.ENDPOINT_TO_CLIENT
        sent = self.packets(netns, Direction.OUT, leg)
        return [packet.segment.seq for packet in sent if packet.segment.flags & SYN]

    def syn_ack(self) -> Packet | None:
        """The server's SYN,ACK as it left the server."""
        for packet in self.packets(self.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT):
            if packet.segment.flags & SYN:
                return packet
        return None


def _leg(legs: dict[tuple[int, int, int, int], Leg], header: Tuple | Segment) -> Leg | None:
    return legs.get((int(header.src), header.sport, int(header.dst), header.dport))


def flows_in(topology: Topology, events: Iterable[Event]) -> tuple[Flow, ...]:
    """The TCP connections that conntrack translated to another destination, by its own events, each once.

    A connection one of whose ends is no interface's address in the topology is left out.
    """
    homes = {address.ip: end.netns for end in topology.interfaces() for address in end.addresses}
    found: dict[Flow, None] = {}
    for event in events:
        if not isinstance(event, ConntrackEvent) or event.tuple_orig.proto != IPPROTO_TCP:
            continue
        orig, reply = event.tuple_orig, event.tuple_reply
        if (orig.dst, orig.dport) == (reply.src, reply.sport) or orig.src not in homes or reply.src not in homes:
            continue
        server = homes[reply.src]
        flow = Flow(
            client=homes[orig.src],
            node=event.netns,
            server=server,
            server_node=topology.netns(server).node,
            client_address=orig.src,
            client_port=orig.sport,
            vip=orig.dst,
            port=orig.dport,
            endpoint=reply.src,
            target_port=reply.sport,
        )
        found[flow] = None
    return tuple(found)
