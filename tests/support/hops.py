"""Hand-made recordings: packets as they cross the flagship's interfaces one by one, 10 us apart, with NAT on the way.

client/eth0 > client-node/veth-client > client-node/cni0 > client-node/eth0 > server/eth0, and back. Times are
microseconds after START_NS; sequence numbers are relative to CLIENT and SERVER.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from places import TOPOLOGIES
from story import FLOW, START_NS

from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    Direction,
    EntryChange,
    Event,
    InvalidReason,
    Packet,
    Segment,
    SocketEvent,
    SocketEventKind,
    TraceStep,
    Tuple,
)
from netlab.record.flow import Flow, Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording, Tap

FLAGSHIP = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text()
CLIENT, SERVER = 1000, 5000
MASK = 0xFFFFFFFF
HOP_US = 10

_IN, _OUT = Direction.IN, Direction.OUT
TO_SERVER = (
    ("client", "eth0", _OUT),
    ("client-node", "veth-client", _IN),
    ("client-node", "cni0", _IN),
    ("client-node", "eth0", _OUT),
    ("server", "eth0", _IN),
)
TO_CLIENT = (
    ("server", "eth0", _OUT),
    ("client-node", "eth0", _IN),
    ("client-node", "cni0", _OUT),
    ("client-node", "veth-client", _OUT),
    ("client", "eth0", _IN),
)
UNTRANSLATED_AT = 3
"""How many of TO_SERVER's hops a packet has before NAT; it has 2 of TO_CLIENT's."""

TAPS = tuple(
    Tap(netns, ifname, "node" if netns == "client-node" else "pod")
    for netns, ifname in dict.fromkeys((netns, ifname) for netns, ifname, _ in TO_SERVER)
)
OBSERVERS = (
    *(ObserverId(ObserverKind.PACKETS, tap.netns, tap.ifname) for tap in TAPS),
    ObserverId(ObserverKind.REASONS, "client-node"),
)


def other_flow(port: int = 40001) -> Flow:
    """Another connection of the same client."""
    return replace(FLOW, client_port=port)


class Hops:
    """Builds the events of a recording. Each packet has an IP identification of its own, unless it is told one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._ip_id = 0

    def to_server(
        self, at_us: int, flags: int, seq: int, ack: int = 0, length: int = 0, window: int = 2304, **how: Any
    ) -> Segment:
        """A packet of the client's; `how` as for `_send`."""
        numbers = (CLIENT + seq, SERVER + ack)
        return self._send(at_us, True, flags, *numbers, length, window, **how)

    def to_client(
        self, at_us: int, flags: int, seq: int, ack: int = 5, length: int = 0, window: int = 64, **how: Any
    ) -> Segment:
        """A packet of the server's; `how` as for `_send`."""
        numbers = (SERVER + seq, CLIENT + ack)
        return self._send(at_us, False, flags, *numbers, length, window, **how)

    def _send(
        self,
        at_us: int,
        to_server: bool,
        flags: int,
        seq: int,
        ack: int,
        length: int,
        window: int,
        *,
        flow: Flow = FLOW,
        hops: int = 5,
        split_at: int = 5,
        mss: int = 1448,
        nat: bool = True,
        held: tuple[int, int] = (0, 0),
        **fields: Any,
    ) -> Segment:
        """hops is how far it comes; held is before which hop it waits, and how many us; nat False: no entry, so nothing
        is rewritten; from the hop split_at on it is split into segments of mss bytes. Returns the packet as the node's
        conntrack gets it."""
        self._ip_id += 1
        fields.setdefault("ip_id", self._ip_id)
        legs = {leg: flow.header(leg) for leg in Leg}
        before, after = (
            (Leg.CLIENT_TO_VIP if nat else Leg.CLIENT_TO_ENDPOINT, Leg.CLIENT_TO_ENDPOINT)
            if to_server
            else (Leg.ENDPOINT_TO_CLIENT, Leg.VIP_TO_CLIENT if nat else Leg.ENDPOINT_TO_CLIENT)
        )
        shown = ack & MASK if flags & ACK else 0
        whole = Segment(*legs[before], seq & MASK, shown, flags, window, length, 0 if flags & SYN else None)
        whole = replace(whole, **fields)
        path = TO_SERVER if to_server else TO_CLIENT
        for place, hop in enumerate(path[:hops]):
            src, sport, dst, dport = legs[before if place < (UNTRANSLATED_AT if to_server else 2) else after]
            here = replace(whole, src=src, sport=sport, dst=dst, dport=dport)
            parts = _split(here, mss) if place >= split_at else [here]
            for number, part in enumerate(parts):
                here_us = at_us + place * HOP_US + (held[1] if place >= held[0] else 0)
                self.events.append(Packet(START_NS + here_us * 1000 + number, *hop, part))
        return whole

    def opened(self, flow: Flow = FLOW, at_us: int = 0) -> Hops:
        """A handshake, a request of 4 bytes, and its ACK: packets #1 to #5, 100 us apart."""
        self.to_server(at_us, SYN, 0, flow=flow)
        self.to_client(at_us + 100, SYN | ACK, 0, 1, window=65160, flow=flow)
        self.to_server(at_us + 200, ACK, 1, 1, flow=flow)
        self.to_server(at_us + 300, PSH | ACK, 1, 1, 4, flow=flow)
        self.to_client(at_us + 400, ACK, 1, flow=flow)
        return self

    def filled(self) -> Hops:
        """`opened`, and a window of 2,304 bytes that the server has filled: #6, #7."""
        self.opened()
        self.to_client(500, ACK, 1, 5, 2304)
        self.to_server(600, ACK, 5, 2305, window=0)
        return self

    def closed(self, at_us: int, seq: int) -> Hops:
        """The server's FIN, and the client's answers."""
        self.to_client(at_us, FIN | ACK, seq)
        self.to_server(at_us + 100, FIN | ACK, 5, seq + 1)
        self.to_client(at_us + 200, ACK, seq + 1, 6)
        return self

    def reason(self, at_us: int, text: str, about: Segment, netns: str = "client-node") -> None:
        """What conntrack logged about a packet."""
        self.events.append(InvalidReason(START_NS + at_us * 1000, netns, "eth0", text, about))

    def trace(self, at_us: int, trace_id: int, chain: str, rule: str, verdict: str, about: Segment | None) -> None:
        """A rule that a packet came through on the client's node."""
        time_ns = START_NS + at_us * 1000
        step = TraceStep(time_ns, "client-node", trace_id, "ip", "filter", chain, rule, verdict, segment=about)
        self.events.append(step)

    def invalid(self, at_us: int, trace_id: int, about: Segment) -> None:
        """A rule of the observers' own found a packet INVALID on the client's node."""
        self.trace(at_us, trace_id, TRACE_INVALID_CHAIN, "ct state invalid", "continue", about)
        own = self.events.pop()
        assert isinstance(own, TraceStep)
        self.events.append(replace(own, family="inet", table=TRACE_TABLE))

    def socket(self, at_us: int, netns: str, code: int, connection: str = "") -> None:
        """An errno at a socket."""
        time_ns, kind = START_NS + at_us * 1000, SocketEventKind.ERROR
        self.events.append(SocketEvent(time_ns, netns, kind, errno=code, connection=connection))

    def stale(self, at_us: int) -> None:
        """The server's window made stale."""
        kind = SocketEventKind.STALE_WINDOW
        self.events.append(SocketEvent(START_NS + at_us * 1000, "server", kind, window_bytes=1 << 20, was_bytes=0))

    def entry(self, at_us: int, change: EntryChange, flow: Flow = FLOW, **fields: Any) -> None:
        """The flow's entry on the client's node, made or ended; in mid-stream its tcp_state is "ESTABLISHED"."""
        orig = Tuple(flow.client_address, flow.client_port, flow.vip, flow.port, 6)
        reply = Tuple(flow.endpoint, flow.target_port, flow.client_address, flow.client_port, 6)
        whole = ConntrackEvent(START_NS + at_us * 1000, "client-node", change, orig, reply, ("DST_NAT",))
        self.events.append(replace(whole, **fields))

    def adopted(self, at_us: int, flow: Flow = FLOW) -> None:
        """An entry made there for a packet of the server's in mid-stream."""
        orig = Tuple(flow.endpoint, flow.target_port, flow.client_address, flow.client_port, 6)
        reply = Tuple(flow.client_address, flow.client_port, flow.endpoint, flow.target_port, 6)
        fields = {"tuple_orig": orig, "tuple_reply": reply, "status": ("CONFIRMED",), "tcp_state": "ESTABLISHED"}
        self.entry(at_us, EntryChange.NEW, flow, **fields)

    def recording(self, **changes: Any) -> Recording:
        """The events as a recording of the flagship, on a kernel of 6.18, in which nothing was lost."""
        whole = Recording(
            lab="kube-proxy-reset",
            kernel="6.18.44",
            started_ns=START_NS,
            ended_ns=max((event.time_ns for event in self.events), default=START_NS),
            topology=FLAGSHIP,
            settings=(),
            fixes=(),
            taps=TAPS,
            flows=(FLOW,),
            events=tuple(self.events),
            lost=tuple((observer, 0) for observer in OBSERVERS),
        )
        return replace(whole, **changes)


def _split(whole: Segment, mss: int) -> list[Segment]:
    """The segments that GSO makes of a super-packet: PSH and FIN go with the last, each has the next identification."""
    parts = []
    for number, offset in enumerate(range(0, whole.payload_bytes, mss)):
        length = min(mss, whole.payload_bytes - offset)
        flags = whole.flags if offset + length == whole.payload_bytes else whole.flags & ~(PSH | FIN)
        seq, ip_id = (whole.seq + offset) & MASK, whole.ip_id + number if whole.ip_id else 0
        parts.append(replace(whole, seq=seq, payload_bytes=length, flags=flags, ip_id=ip_id))
    return parts
