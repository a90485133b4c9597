"""craft-segment: a segment that looks like one of the connection's, written by hand, leaves one end's namespace.

No socket knows of it: it is what an attacker, a broken device or a very late copy would bring.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.errors import unsupported
from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, END, FLAGS, NUMBER, OFFSET, flag_bits
from netlab.linux.tcp_repair import next_numbers
from netlab.record.events import ACK, FIN, PSH, RST, SYN, Direction, Packet, Segment
from netlab.record.recording import CraftedSegment
from netlab.record.wire import encode_tcp
from netlab.yamlspec.shapes import Choice, Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.connection import Connection
    from netlab.experiments.context import Context

DOC = "a segment like one of the connection's, written by hand (raw socket), leaves the namespace of one end"
BYTES, WINDOW = 4, 512
ARGUMENTS = Fields(
    {
        "from": Key(END, "whose it pretends to be", required=True),
        "offset": Key(
            OFFSET, "how far its first byte is from the next one that this end's socket will send (default 0)"
        ),
        "seq": Key(NUMBER, "its absolute sequence number; together with `ack`, it works for an end without a socket"),
        "ack": Key(NUMBER, "its acknowledgement number itself (default the one that the socket would send)"),
        "window": Key(Integer(0, 65535), f"its window field (default {WINDOW})"),
        "bytes": Key(Integer(0, 1200), f"its payload (default {BYTES}; with SYN, FIN or RST 0)"),
        "flags": Key(FLAGS, "its flags (default PSH and ACK)"),
        "checksum": Key(Choice("a checksum", ("right", "wrong")), "its TCP checksum (default right)"),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Send it; NotApplied where nobody knows its numbers, UnsupportedError where the kernel doesn't tell a socket's.

    OSError without a route.
    """
    connection = context.connection(arguments.get("connection", FIRST))
    netns, header = connection.place(arguments["from"])
    flags = flag_bits(arguments["flags"]) if "flags" in arguments else PSH | ACK
    payload = bytes(arguments.get("bytes", 0 if flags & (SYN | FIN | RST) else BYTES))
    if "seq" in arguments and ("ack" in arguments or not flags & ACK):
        seq, ack = arguments["seq"], arguments.get("ack", 0)
    else:
        seq, ack = _numbers(context, connection, arguments["from"])
        seq, ack = arguments.get("seq", seq + arguments.get("offset", 0)) & 0xFFFFFFFF, arguments.get("ack", ack)
    ends = (header.src, header.sport, header.dst, header.dport)
    segment = Segment(*ends, seq, ack, flags, arguments.get("window", WINDOW), len(payload))
    data = bytearray(encode_tcp(segment, payload))
    if arguments.get("checksum") == "wrong":
        data[16] ^= 0xFF
    family = socket.AF_INET if header.src.version == 4 else socket.AF_INET6
    with context.namespaces.socket(netns, family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        context.made(CraftedSegment(time.time_ns(), netns, segment))
        raw.sendto(data, (str(segment.dst), 0))


def _numbers(context: Context, connection: Connection, name: str) -> tuple[int, int]:
    """The next sequence numbers to send and to receive: the socket's own, or where it is gone, those seen last."""
    end = next((end for end in connection.ends() if end.name == name), None)
    if end is not None:
        with unsupported("can't ask a socket for its sequence numbers"):
            return next_numbers(end.socket)
    netns, header = connection.place(name)
    sent = [
        event.segment
        for event in context.watch.gathered()
        if isinstance(event, Packet) and event.netns == netns and event.direction is Direction.OUT
        if (event.segment.src, event.segment.sport, event.segment.dport) == (header.src, header.sport, header.dport)
    ]
    if not sent:
        raise NotApplied(f"the sequence numbers of the {name}, which has no socket: seq and ack would say them")
    return sent[-1].end, sent[-1].ack
