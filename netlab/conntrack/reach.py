"""How far a server reached past its client's window, seen from the ends: for experiments that must prove it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netlab.record.events import ACK, SYN, Packet, Segment, seq_diff


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


def reach(syn: Segment, syn_ack: Segment, client: Iterable[Packet], server: Iterable[Packet]) -> Reach | None:
    """How far the server reached; None where the client's first ACK was not seen.

    client are the packets of the client as they leave it, server those of the server as they leave it. A promise of
    the client counts from the moment it leaves the client, before conntrack or the server can know it: what is past the
    edge here is past the edge for them.
    """
    scaled = syn.wscale is not None and syn_ack.wscale is not None
    shift = syn.wscale or 0 if scaled else 0
    edge: int | None = None
    max_window = syn.window
    farthest: Reach | None = None
    promises = [(packet, True) for packet in client if packet.segment.flags & (SYN | ACK) == ACK]
    data = [(packet, False) for packet in server if packet.segment.payload_bytes]
    for packet, is_promise in sorted(promises + data, key=lambda each: each[0].time_ns):
        segment = packet.segment
        if is_promise:
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
