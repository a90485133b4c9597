"""Segments that arrive after a copy of their data that was sent after them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from netlab.analysis.result import Evidence, Link
from netlab.record.events import Direction, Packet
from netlab.record.flow import FlowEvents, Leg


def late_segments(events: FlowEvents, netns: str, since_ns: int = 0, by_ns: float = 0) -> Iterator[Evidence]:
    """The segments of the server's that came to a namespace after a copy that was sent later, each as it left."""
    for sent in _sent(events, since_ns).values():
        came = [_arrival(events, netns, packet) for packet in sent] if len(sent) > 1 else []
        for index, arrived in enumerate(came):
            copies_ns = [copy.time_ns for copy in came[index + 1 :] if copy is not None]
            if arrived is not None and copies_ns and arrived.time_ns - min(copies_ns) > by_ns:
                took_ms, after_ms = (
                    (arrived.time_ns - before_ns) / 1e6 for before_ns in (sent[index].time_ns, min(copies_ns))
                )
                note = f"comes to {netns} {took_ms:,.1f} ms after it left, and {after_ms:,.1f} ms after its copy"
                yield Evidence(Link.REPLY, sent[index], note)


def _sent(events: FlowEvents, since_ns: int) -> dict[int, list[Packet]]:
    """What left the server with payload, by sequence number, in the order of time."""
    found: dict[int, list[Packet]] = defaultdict(list)
    for packet in events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT):
        if packet.segment.payload_bytes and packet.time_ns >= since_ns:
            found[packet.segment.seq].append(packet)
    return found


def _arrival(events: FlowEvents, netns: str, sent: Packet) -> Packet | None:
    for leg in (Leg.ENDPOINT_TO_CLIENT, Leg.VIP_TO_CLIENT):
        for packet in events.packets(netns, Direction.IN, leg):
            if packet.time_ns >= sent.time_ns and packet.segment.same_packet(sent.segment):
                return packet
    return None
