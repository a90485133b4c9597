"""burst: what left under a stale window went so far past the real one that it tells, or not past it at all.

Either a segment left the server so far past the client's window that every kernel's conntrack finds it INVALID; or the
client's window was open all along, and every byte that left under the stale one was inside it. A burst in between
proves nothing: some kernels forgive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.conntrack.reach import Reach, reach
from netlab.experiments.moment import Moment
from netlab.record.events import Direction, SocketEventKind
from netlab.record.flow import FlowEvents, Leg
from netlab.yamlspec.shapes import Fields

DOC = "under the stale window data left so far past the client's that every kernel calls it INVALID, or none past it"
ARGUMENTS = Fields({})


def look(moment: Moment, _arguments: Mapping[str, Any]) -> Proof:
    """The window as the kernel took it, and the segment that tells."""
    events = moment.flow_events
    if events is None:
        return Proof((), "a connection")
    stale = next((event for event in events.sockets if event.kind is SocketEventKind.STALE_WINDOW), None)
    if stale is None:
        return Proof((), f"the stale window, read back from the socket in {events.flow.server}")
    window = Evidence(
        Link.STALE_WINDOW,
        stale,
        f"the kernel now assumes a send window of {stale.window_bytes:,} bytes (was {stale.was_bytes:,})",
    )
    if stale.window_bytes <= stale.was_bytes:
        return Proof(
            (), f"a larger send window: the kernel's went from {stale.was_bytes:,} to {stale.window_bytes:,} bytes"
        )
    sent = [
        packet
        for packet in events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
        if packet.segment.payload_bytes and packet.time_ns >= stale.time_ns
    ]
    reached = reached_by(events)
    if reached is None:
        return Proof((window,), "the handshake, which tells what the client allowed")
    if not sent:
        return Proof((window,), f"data leaving {events.flow.server} after the stale window was set")
    if reached.packet is not None:
        note = (
            f"ends {reached.beyond_bytes:,} bytes past what the client allowed; conntrack forgives at most "
            f"{reached.forgiven_bytes:,}"
        )
        return Proof((window, Evidence(Link.REPLY, reached.packet, note)))
    if reached.beyond_bytes > 0:
        return Proof(
            (window,),
            f"a burst far enough past the client's window: it went {reached.beyond_bytes:,} bytes past it, and "
            f"conntrack forgives {reached.forgiven_bytes:,}",
        )
    if stale.was_bytes < sent[0].segment.payload_bytes:
        return Proof(
            (window,),
            f"a burst past the client's window of {stale.was_bytes:,} bytes: the window opened before data left under "
            "the stale one",
        )
    note = "inside the client's window, as every byte the server sent"
    return Proof((window, Evidence(Link.REPLY, sent[0], note)))


def reached_by(events: FlowEvents) -> Reach | None:
    """How far the connection's server reached; None where the handshake or the client's first ACK was not seen."""
    syn, syn_ack = events.syn(), events.syn_ack()
    if syn is None or syn_ack is None:
        return None
    client = events.packets(events.flow.client, Direction.OUT, Leg.CLIENT_TO_VIP)
    server = events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
    return reach(syn, syn_ack.segment, client, [packet for packet in server if packet.ifname == syn_ack.ifname])
