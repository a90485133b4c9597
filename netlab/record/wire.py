"""Bytes of a packet to a Segment, or to a Datagram: Ethernet, IPv4 or IPv6, TCP or something else; and a Segment's
TCP header to bytes. Pure.

Checksums are not looked at: on a veth they are usually not computed yet.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from netlab.model import Address
from netlab.record.events import SYN, Datagram, Segment, Tuple, seq_diff

ETH_HEADER_BYTES = 14
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
"""Ethernet's protocol numbers (include/uapi/linux/if_ether.h)."""

IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6, IPPROTO_SCTP = 1, 6, 17, 58, 132
WITH_PORTS = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP)
"""Protocols whose headers begin with the source port and the destination port."""

ICMP_ERRORS = (3, 11, 12)
"""Destination unreachable, time exceeded, parameter problem (RFC 792): they quote the packet that they answer."""
ICMPV6_FIRST_INFORMATIONAL = 128
"""ICMPv6 messages of a lower type are errors, and quote the packet that they answer (RFC 4443, section 2.1)."""

# RFC 792, RFC 1812 section 5.2.7.1; RFC 4443. By type, and by type and code where there are several worth a name.
_ICMP = {
    (3, 0): "net unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 13): "administratively prohibited",
    (11, 0): "time to live exceeded",
    (11, 1): "fragment reassembly time exceeded",
    (12, 0): "parameter problem",
}
_ICMPV6 = {
    (1, 0): "no route to destination",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "fragment reassembly time exceeded",
    (4, 0): "parameter problem",
}
ICMP_NAMES = tuple(sorted({*_ICMP.values(), *_ICMPV6.values()}))

_FRAGMENT_OFFSET = 0x1FFF
_IPV4_HEADER_BYTES, _IPV6_HEADER_BYTES, _ICMP_HEADER_BYTES = 20, 40, 8
_PORTS = struct.Struct("!HH")
_TCP = struct.Struct("!HHIIBBH")
_TCP_HEADER_BYTES = 20
_OPTION_END, _OPTION_NOP, _OPTION_WSCALE, _OPTION_SACK_PERMITTED, _OPTION_SACK, _OPTION_TIMESTAMP = 0, 1, 3, 4, 5, 8
_SACK_BLOCK = struct.Struct("!II")
_TIMESTAMPS = struct.Struct("!II")
_ALIGNED_TIMESTAMP = bytes([_OPTION_NOP, _OPTION_NOP, _OPTION_TIMESTAMP, 10])
"""How Linux begins the options of every segment but a SYN (RFC 7323, appendix A)."""


def decode_frame(frame: bytes) -> Segment | None:
    """The TCP segment in an Ethernet frame, which may be cut off after the TCP header."""
    return decode_ip(frame[ETH_HEADER_BYTES:])


def decode_ip(packet: bytes) -> Segment | None:
    """The TCP segment in an IP packet, which may be cut off after the TCP header.

    None for anything else: other protocols, later fragments, IPv6 extension headers, headers that are cut off.
    """
    if not packet:
        return None
    if packet[0] >> 4 == 4:
        return _decode_ipv4(packet)
    return _decode_ipv6(packet) if packet[0] >> 4 == 6 else None


def decode_datagram(packet: bytes) -> Datagram | None:
    """The datagram in an IP packet, which may be cut off; None for TCP, and for what decode_ip gives None otherwise."""
    read = _ip_header(packet)
    if read is None or read.header.proto == IPPROTO_TCP or read.is_later_fragment:
        return None
    rest = packet[read.header_bytes :]
    proto = read.header.proto
    if proto not in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        return Datagram(read.header, read.payload_bytes, read.ip_id)
    if len(rest) < _ICMP_HEADER_BYTES:
        return None
    kind, code = rest[0], rest[1]
    is_error = kind in ICMP_ERRORS if proto == IPPROTO_ICMP else kind < ICMPV6_FIRST_INFORMATIONAL
    quoted = _ip_header(rest[_ICMP_HEADER_BYTES:]) if is_error else None
    return Datagram(read.header, read.payload_bytes, read.ip_id, kind, code, quoted.header if quoted else None)


def icmp_name(datagram: Datagram) -> str:
    """The name of an ICMP message, "port unreachable" or "type 8 code 0"; empty for what is none."""
    if datagram.icmp_type is None or datagram.icmp_code is None:
        return ""
    names = _ICMP if datagram.header.proto == IPPROTO_ICMP else _ICMPV6
    message = (datagram.icmp_type, datagram.icmp_code)
    return names.get(message, f"type {message[0]} code {message[1]}")


class _IpHeader(NamedTuple):
    header: Tuple
    header_bytes: int
    payload_bytes: int
    ip_id: int
    is_later_fragment: bool


def _ip_header(packet: bytes) -> _IpHeader | None:
    """An IP packet's header, and the ports behind it; None where it is cut off before them."""
    if len(packet) >= _IPV6_HEADER_BYTES and packet[0] >> 4 == 6:
        proto, src, dst, header_bytes = packet[6], packet[8:24], packet[24:40], _IPV6_HEADER_BYTES
        ((payload_bytes,), ip_id, fragment) = struct.unpack_from("!H", packet, 4), 0, 0
    elif len(packet) >= _IPV4_HEADER_BYTES and packet[0] >> 4 == 4:
        proto, src, dst, header_bytes = packet[9], packet[12:16], packet[16:20], (packet[0] & 0xF) * 4
        total_bytes, ip_id, fragment = struct.unpack_from("!HHH", packet, 2)
        payload_bytes = total_bytes - header_bytes
    else:
        return None
    later, sport, dport = bool(fragment & _FRAGMENT_OFFSET), 0, 0
    if proto in WITH_PORTS and not later:
        if len(packet) < header_bytes + _PORTS.size:
            return None
        sport, dport = _PORTS.unpack_from(packet, header_bytes)
    header = Tuple(_address(src), sport, _address(dst), dport, proto)
    return _IpHeader(header, header_bytes, payload_bytes, ip_id, later)


def encode_tcp(segment: Segment, payload: bytes = b"") -> bytes:
    """A segment's TCP header, without options, its payload, and the right checksum (RFC 9293, section 3.1)."""
    ports, numbers = (segment.sport, segment.dport), (segment.seq, segment.ack)
    header = _TCP.pack(*ports, *numbers, _TCP_HEADER_BYTES // 4 << 4, segment.flags, segment.window)
    addresses = segment.src.packed + segment.dst.packed
    pseudo = addresses + struct.pack("!IxxxB", _TCP_HEADER_BYTES + len(payload), IPPROTO_TCP)
    checksum = internet_checksum(pseudo + header + payload)
    return header + struct.pack("!Hxx", checksum) + payload


def internet_checksum(data: bytes) -> int:
    """The ones' complement of the ones' complement sum of 16-bit words (RFC 1071); an odd byte is padded with 0."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _decode_ipv4(packet: bytes) -> Segment | None:
    header_bytes = (packet[0] & 0xF) * 4
    if len(packet) < max(header_bytes, _IPV4_HEADER_BYTES) or packet[9] != IPPROTO_TCP:
        return None
    total_bytes, ip_id, fragment = struct.unpack_from("!HHH", packet, 2)
    if fragment & _FRAGMENT_OFFSET:
        return None
    return _decode_tcp(packet, header_bytes, total_bytes - header_bytes, packet[12:16], packet[16:20], ip_id)


def _decode_ipv6(packet: bytes) -> Segment | None:
    if len(packet) < _IPV6_HEADER_BYTES or packet[6] != IPPROTO_TCP:
        return None
    (payload_bytes,) = struct.unpack_from("!H", packet, 4)
    return _decode_tcp(packet, _IPV6_HEADER_BYTES, payload_bytes, packet[8:24], packet[24:40])


def _decode_tcp(packet: bytes, start: int, tcp_bytes: int, src: bytes, dst: bytes, ip_id: int = 0) -> Segment | None:
    if len(packet) < start + _TCP_HEADER_BYTES:
        return None
    sport, dport, seq, ack, offset, flags, window = _TCP.unpack_from(packet, start)
    header_bytes = (offset >> 4) * 4
    options = _options(packet[start + _TCP_HEADER_BYTES : start + header_bytes])
    return Segment(
        _address(src),
        sport,
        _address(dst),
        dport,
        seq,
        ack,
        flags,
        window,
        tcp_bytes - header_bytes,
        options.wscale if flags & SYN else None,
        ip_id,
        options.ts_val,
        options.ts_ecr,
        bool(flags & SYN) and options.sack_permitted,
        options.sack_edge,
        offset >> 4,
    )


class _Options(NamedTuple):
    wscale: int | None = None
    ts_val: int | None = None
    ts_ecr: int | None = None
    sack_permitted: bool = False
    sack_edge: int | None = None


def _options(options: bytes) -> _Options:
    """What the options say; None for what isn't there or is cut off."""
    if options.startswith(_ALIGNED_TIMESTAMP) and len(options) == 12:
        return _Options(None, *_TIMESTAMPS.unpack_from(options, 4))
    wscale: int | None = None
    ts_val: int | None = None
    ts_ecr: int | None = None
    sack_permitted = False
    sack_edge: int | None = None
    at = 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOP:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            break
        kind, end = options[at], at + options[at + 1]
        if kind == _OPTION_WSCALE and at + 2 < len(options):
            wscale = options[at + 2]
        elif kind == _OPTION_TIMESTAMP and at + 10 <= len(options):
            ts_val, ts_ecr = _TIMESTAMPS.unpack_from(options, at + 2)
        elif kind == _OPTION_SACK_PERMITTED:
            sack_permitted = True
        elif kind == _OPTION_SACK:
            blocks = options[at + 2 : end]
            for _, right in _SACK_BLOCK.iter_unpack(blocks[: len(blocks) // 8 * 8]):
                sack_edge = right if sack_edge is None or seq_diff(right, sack_edge) > 0 else sack_edge
        at = end
    return _Options(wscale, ts_val, ts_ecr, sack_permitted, sack_edge)


@lru_cache(maxsize=1024)
def _address(packed: bytes) -> Address:
    return ip_address(packed)
