"""craft-segment: a segment that looks like one of the connection's, written by hand, leaves one end's namespace.

No socket knows of it: it is what an attacker, a broken device or a very late copy would bring.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from netlab.errors import unsupported
from netlab.experiments.experiment import FIRST
from netlab.experiments.words import CONNECTION, END, FLAGS, OFFSET, flag_bits
from netlab.linux.tcp_repair import next_numbers
from netlab.record.events import ACK, PSH, Segment
from netlab.record.recording import CraftedSegment
from netlab.record.wire import encode_tcp
from netlab.yamlspec.shapes import Choice, Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "a segment like one of the connection's, written by hand (raw socket), leaves the namespace of one end"
BYTES = 4
ARGUMENTS = Fields(
    {
        "from": Key(END, "whose it pretends to be", required=True),
        "offset": Key(
            OFFSET, "how far its first byte is from the next one that this end's socket will send (default 0)"
        ),
        "bytes": Key(Integer(0, 1200), f"its payload (default {BYTES})"),
        "flags": Key(FLAGS, "its flags (default PSH and ACK); its ack is the one that the socket would send"),
        "checksum": Key(Choice("a checksum", ("right", "wrong")), "its TCP checksum (default right)"),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)
_WINDOW = 512


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Send it; UnsupportedError where the kernel doesn't tell a socket's sequence numbers, OSError without a route."""
    end = context.end(arguments["from"], arguments.get("connection", FIRST))
    with unsupported("can't ask a socket for its sequence numbers"):
        seq, ack = next_numbers(end.socket)
    (host, port, *_), (peer, peer_port, *_) = end.socket.getsockname(), end.socket.getpeername()
    flags = flag_bits(arguments["flags"]) if "flags" in arguments else PSH | ACK
    payload = bytes(arguments.get("bytes", BYTES))
    first = (seq + arguments.get("offset", 0)) & 0xFFFFFFFF
    segment = Segment(ip_address(host), port, ip_address(peer), peer_port, first, ack, flags, _WINDOW, len(payload))
    data = bytearray(encode_tcp(segment, payload))
    if arguments.get("checksum") == "wrong":
        data[16] ^= 0xFF
    with context.namespaces.socket(end.netns, end.socket.family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        context.made(CraftedSegment(time.time_ns(), end.netns, segment))
        raw.sendto(data, (str(segment.dst), 0))
