"""Packets as bytes, written by hand: a connection's between one client and one server, and what they are read as."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import story

from netlab.record.events import ACK, Direction, Packet, Segment
from netlab.record.wire import decode_frame

CLIENT, SERVER = ip_address("10.0.0.2"), ip_address("10.0.1.2")
CLIENT6, SERVER6 = ip_address("fd00::2"), ip_address("fd00:1::2")


def tcp(flags: int, options: bytes = b"", payload: bytes = b"") -> bytes:
    """A segment from port 40000 to port 80."""
    assert len(options) % 4 == 0
    offset = (5 + len(options) // 4) << 4
    return struct.pack("!HHIIBBHHH", 40000, 80, 7, 9, offset, flags, 512, 0xBEEF, 0) + options + payload


def ipv4(body: bytes, options: bytes = b"", fragment: int = 0, protocol: int = 6) -> bytes:
    """A packet from CLIENT to SERVER."""
    length = 20 + len(options) + len(body)
    first = 0x40 | 5 + len(options) // 4
    header = struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
    return header + CLIENT.packed + SERVER.packed + options + body


def ipv6(body: bytes, next_header: int = 6) -> bytes:
    """A packet from CLIENT6 to SERVER6."""
    return struct.pack("!IHBB", 6 << 28, len(body), next_header, 64) + CLIENT6.packed + SERVER6.packed + body


def segment(flags: int, payload_bytes: int, wscale: int | None = None, options: bytes = b"") -> Segment:
    """What the segment of tcp() is read as."""
    offset = 5 + len(options) // 4
    return Segment(CLIENT, 40000, SERVER, 80, 7, 9, flags, 512, payload_bytes, wscale, ip_id=1, data_offset=offset)


def udp(payload: bytes = b"") -> bytes:
    """A datagram from port 40000 to port 53."""
    return struct.pack("!HHHH", 40000, 53, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int, rest: bytes = b"") -> bytes:
    """An ICMP message of that type and code."""
    return struct.pack("!BBHI", kind, code, 0xBEEF, 0) + rest


FRAME = b"\2" * 12 + b"\x08\0" + ipv4(tcp(ACK, payload=b"abc"))
"""A whole frame with three bytes for the server."""


def packet(at_us: int, frame: bytes = FRAME, direction: Direction = Direction.OUT, wire_bytes: int = 0) -> Packet:
    """The frame as client/eth0 had it so long after the start of a story."""
    segment = decode_frame(frame)
    assert segment is not None
    at_ns = story.START_NS + at_us * 1000
    return Packet(at_ns, "client", "eth0", direction, segment, wire_bytes or len(frame), frame)
