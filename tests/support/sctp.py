"""The first two packets of an SCTP association (RFC 9260), through raw sockets.

Conntrack and NAT know SCTP in kernels that have no sockets for it. The answer carries a text as its State Cookie.
"""

import socket
import struct
from typing import NamedTuple

INIT, INIT_ACK = 1, 2
_STATE_COOKIE = 7


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _table()


def _checksum(packet: bytes) -> bytes:
    """CRC32c (RFC 9260, appendix A) of a packet whose checksum is zero."""
    crc = 0xFFFFFFFF
    for byte in packet:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


class Packet(NamedTuple):
    """One packet with one chunk, INIT or INIT_ACK. tag is the receiver's, initiate_tag the sender's."""

    sport: int
    dport: int
    tag: int
    chunk: int
    initiate_tag: int
    text: str = ""

    def packed(self) -> bytes:
        """All above the IP header, checksummed: conntrack looks at it."""
        cookie = self.text.encode()
        parameter = struct.pack("!HH", _STATE_COOKIE, 4 + len(cookie)) + cookie if cookie else b""
        chunk = struct.pack("!BBHIIHHI", self.chunk, 0, 20 + len(parameter), self.initiate_tag, 65535, 1, 1, 1)
        head = struct.pack("!HHI", self.sport, self.dport, self.tag)
        body = chunk + parameter + bytes(-len(parameter) % 4)
        return head + _checksum(head + bytes(4) + body) + body


def receive(raw: socket.socket) -> tuple[Packet, str]:
    """The next packet of a raw socket, and who sent it. In IPv4 the IP header comes with it, in IPv6 it doesn't."""
    packet, sender = raw.recvfrom(1 << 16)
    return _unpacked(packet[(packet[0] & 15) * 4 :] if raw.family == socket.AF_INET else packet), sender[0]


def _unpacked(packet: bytes) -> Packet:
    sport, dport, tag, _, chunk, _, _, initiate_tag = struct.unpack_from("!HHIIBBHI", packet)
    text = ""
    if len(packet) > 32:
        _, length = struct.unpack_from("!HH", packet, 32)
        text = packet[36 : 32 + length].decode()
    return Packet(sport, dport, tag, chunk, initiate_tag, text)
