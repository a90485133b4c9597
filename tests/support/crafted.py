"""IP packets with a TCP segment in them, made by hand: any numbers, flags, options and lengths, right or wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from netlab.conntrack.values import CtDirection
from netlab.record.events import Tuple
from netlab.record.wire import IPPROTO_TCP, internet_checksum

_MASK = 0xFFFFFFFF
_TCP_HEADER = struct.Struct("!HHIIBBHHH")
_TCP_HEADER_BYTES = 20
_FRAGMENT = 44


@dataclass(frozen=True, slots=True)
class Tcp:
    """A segment to be made: which way it goes, its numbers (which wrap), options as bytes.

    data_offset is None for the right one. Its checksum is 0, and its payload zeros.
    """

    direction: CtDirection
    flags: int
    seq: int
    ack: int = 0
    window: int = 1000
    length: int = 0
    options: bytes = b""
    data_offset: int | None = None

    def packet(self, header: Tuple, ip_options: bytes = b"", extension: int = IPPROTO_TCP) -> bytes:
        """The segment in an IP packet of the connection whose original header that is.

        extension is the kind of an IPv6 extension header before it, with nothing in it.
        """
        src, sport, dst, dport = header.src, header.sport, header.dst, header.dport
        if self.direction is CtDirection.REPLY:
            src, sport, dst, dport = dst, dport, src, sport
        offset = (_TCP_HEADER_BYTES + len(self.options)) // 4 if self.data_offset is None else self.data_offset
        numbers = (self.seq & _MASK, self.ack & _MASK)
        tcp = _TCP_HEADER.pack(sport, dport, *numbers, offset << 4, self.flags & 0xFF, self.window, 0, 0)
        body = tcp + self.options + bytes(self.length)
        if src.version == 4:
            return _ipv4(src.packed, dst.packed, body, ip_options)
        return _ipv6(src.packed, dst.packed, body, extension)


def _ipv4(src: bytes, dst: bytes, body: bytes, options: bytes) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBB", 0x40 | words, 0, words * 4 + len(body), 1, 0, 64, IPPROTO_TCP)
    checksum = internet_checksum(head + bytes(2) + src + dst + options)
    return head + struct.pack("!H", checksum) + src + dst + options + body


def _ipv6(src: bytes, dst: bytes, body: bytes, kind: int) -> bytes:
    empty = bytes(6) if kind == _FRAGMENT else b"\1\4\0\0\0\0"  # a fragment that is the whole, or padding
    extension = b"" if kind == IPPROTO_TCP else bytes((IPPROTO_TCP, 0)) + empty
    return struct.pack("!IHBB", 6 << 28, len(extension) + len(body), kind, 64) + src + dst + extension + body
