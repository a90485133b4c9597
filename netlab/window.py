"""How far a server went past what its client allowed, by the arithmetic of conntrack's `tcp_in_window`. Pure.

Conntrack knows the right edge of what the client allowed (td_maxend) and the largest window it advertised
(td_maxwin). A segment that starts up to the edge is taken, and what sticks out raises td_maxwin; one that starts past
the edge is INVALID if it ends more than td_maxwin past it. Kernels up to 6.0 forgive nothing there; later ones forgive
that much: Linux kernel commit 6e250dcbff1d ("netfilter: conntrack: ignore overly delayed tcp packets") (in v6.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from netlab.events import ACK, SYN, Direction, Packet, seq_diff
from netlab.flow import FlowEvents, Leg


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the server reached past the client's window, in bytes.

    packet is the first segment that every kernel's conntrack finds INVALID, as it left the server, and beyond_bytes
    how far it ends past the edge. Without one packet is None, and beyond_bytes is the farthest any segment ended past
    the edge: negative or zero where the client had allowed everything. forgiven_bytes is how far that may be at most:
    one less than td_maxwin, because the kernel counts from td_maxend + 1. edge is the sequence number td_maxend.
    """

    packet: Packet | None
    beyond_bytes: int
    forgiven_bytes: int
    edge: int


def reach(events: FlowEvents) -> Reach | None:
    """How far the server reached; None where the handshake or the client's first ACK was not seen.

    A promise of the client counts from the moment it leaves the client, before conntrack or the server can know it:
    what is past the edge here is past the edge for them.
    """
    syn, syn_ack = events.syn(), events.syn_ack()
    if syn is None or syn_ack is None:
        return None
    scaled = syn.wscale is not None and syn_ack.segment.wscale is not None
    shift = syn.wscale or 0 if scaled else 0
    edge: int | None = None
    max_window = syn.window
    farthest: Reach | None = None
    for packet in _both_directions(events, syn_ack.ifname):
        segment = packet.segment
        if packet.netns == events.flow.client:
            window = segment.window << shift
            # A closed window is one byte open to conntrack: a probe must get through.
            promised = (segment.ack + max(window, 1)) & 0xFFFFFFFF
            edge = promised if edge is None or seq_diff(promised, edge) > 0 else edge
            max_window = max(max_window, window)
        elif edge is not None:
            beyond = seq_diff(segment.end, edge)
            forgiven = max_window - 1
            if seq_diff(segment.seq, edge) > 0 and beyond > forgiven:
                return Reach(packet, beyond, forgiven, edge)
            if farthest is None or beyond > farthest.beyond_bytes:
                farthest = Reach(None, beyond, forgiven, edge)
            if seq_diff(segment.seq, edge) <= 0 < beyond:
                max_window += beyond
    return farthest


def _both_directions(events: FlowEvents, server_ifname: str) -> list[Packet]:
    """The client's ACKs as they leave the client and the server's data as it leaves the server, in time order."""
    client = events.packets(events.flow.client, Direction.OUT, Leg.CLIENT_TO_VIP)
    server = events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
    promises = [packet for packet in client if packet.segment.flags & (SYN | ACK) == ACK]
    data = [packet for packet in server if packet.ifname == server_ifname and packet.segment.payload_bytes]
    return sorted(promises + data, key=lambda packet: packet.time_ns)
