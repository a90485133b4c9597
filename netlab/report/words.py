"""Evidence in words, as the pages of a run and of a matrix say it. Pure."""

from __future__ import annotations

import errno

from netlab.analysis.result import Evidence, Link
from netlab.record.events import (
    ConntrackEvent,
    DatagramPacket,
    InvalidReason,
    SocketEvent,
    TraceStep,
    flag_names,
)
from netlab.record.words import describe, endpoint

LINKS = {
    Link.REQUEST: "The client's request to the VIP",
    Link.REQUEST_TRANSLATED: "NAT: the request goes on to the server pod",
    Link.STALE_WINDOW: "The server's kernel assumes a window that the client did not offer",
    Link.REPLY: "The reply leaves the server",
    Link.INVALID: "Conntrack finds it INVALID",
    Link.ADOPTED: "Conntrack takes it for the beginning of another connection",
    Link.REPLY_UNTRANSLATED: "The reply reaches the client without NAT",
    Link.REPLY_TRANSLATED: "The reply reaches the client with the VIP as its source",
    Link.RST: "The client answers with a RST",
    Link.RST_AT_SERVER: "The RST reaches the server",
    Link.RST_AT_CLIENT: "The RST reaches the client",
    Link.SERVER_RESET: "The server's socket dies",
    Link.CLIENT_RESET: "The client learns of it",
    Link.OBSERVED: "What a step was to bring about",
}
"""What each link of the chain shows."""


def evidence_words(piece: Evidence) -> str:
    """What was seen, in a few words."""
    event = piece.event
    if isinstance(event, SocketEvent):
        return _socket(event)
    if isinstance(event, InvalidReason):
        return event.text
    if isinstance(event, ConntrackEvent):
        state = f" ({event.tcp_state})" if event.tcp_state else ""
        return f"conntrack entry of {endpoint(event.tuple_orig.src, event.tuple_orig.sport)}: {event.change}{state}"
    if isinstance(event, TraceStep):
        return f"{event.table} {event.chain}: {event.verdict}"
    if isinstance(event, DatagramPacket):
        return describe(event.datagram)
    segment = event.segment
    words = [
        f"{endpoint(segment.src, segment.sport)} → {endpoint(segment.dst, segment.dport)}",
        ",".join(flag_names(segment.flags)),
        f"seq {segment.seq if piece.relative_seq is None else piece.relative_seq}",
    ]
    if piece.relative_ack is not None:
        words.append(f"ack {piece.relative_ack}")
    if segment.payload_bytes:
        words.append(f"len {segment.payload_bytes}")
    return " ".join(words)


def _socket(event: SocketEvent) -> str:
    if event.errno:
        return errno.errorcode.get(event.errno, str(event.errno))
    return f"send window {event.window_bytes:,} bytes (was {event.was_bytes:,})"
