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

IPV6_OPTIONS = (0, 43, 60)
"""IPv6's extension headers that say their length in units of 8 bytes: hop-by-hop options, routing, destination options
(RFC 8200, section 4)."""
IPV6_FRAGMENT, IPV6_FRAGMENT_OFFSET = 44, 0xFFF8
"""The fragment header's kind, and the bits of its second pair of bytes that are 0 in the first fragment alone."""

_MORE_FRAGMENTS, _FRAGMENT_OFFSET = 0x2000, 0x1FFF
_IPV6_MORE_FRAGMENTS = 0x1
_HOP_BY_HOP, _AUTHENTICATION = 0, 51
_EXTENSIONS = frozenset({*IPV6_OPTIONS, IPV6_FRAGMENT, _AUTHENTICATION})
# For payloads of 64 KiB and more (RFC 2675).
_JUMBO_OPTION = b"\xc2\x04"

_ETHERTYPE = _LENGTH = struct.Struct("!H")
_IPV4_LENGTH_ID_FRAGMENT = struct.Struct("!HHH")
_JUMBO_LENGTH = struct.Struct("!I")
_IPV4_HEADER_BYTES, _IPV6_HEADER_BYTES, _ICMP_HEADER_BYTES = 20, 40, 8
_PORTS = struct.Struct("!HH")
_TCP = struct.Struct("!HHIIBBH")
_TCP_HEADER_BYTES = 20
_OPTION_END, _OPTION_NOP, _OPTION_WSCALE, _OPTION_SACK_PERMITTED, _OPTION_SACK, _OPTION_TIMESTAMP = 0, 1, 3, 4, 5, 8
_SACK_BLOCK = struct.Struct("!II")
_TIMESTAMPS = struct.Struct("!II")
_ALIGNED_TIMESTAMP = bytes([_OPTION_NOP, _OPTION_NOP, _OPTION_TIMESTAMP, 10])
"""How Linux begins the options of every segment but a SYN (RFC 7323, appendix A)."""


def decode_frame(frame: bytes, wire_bytes: int = 0) -> Segment | None:
    """The TCP segment in an Ethernet frame, which may be cut off after the TCP header; None for what is no IP packet.

    wire_bytes is the frame's whole length: BIG TCP's packets don't say theirs.
    """
    if len(frame) < ETH_HEADER_BYTES or _ETHERTYPE.unpack_from(frame, 12)[0] not in (ETH_P_IP, ETH_P_IPV6):
        return None
    return decode_ip(frame[ETH_HEADER_BYTES:], max(wire_bytes - ETH_HEADER_BYTES, 0))


def decode_ip(packet: bytes, ip_bytes: int = 0) -> Segment | None:
    """The TCP segment in an IP packet, which may be cut off after the TCP header; ip_bytes is its whole length.

    None for anything else: other protocols, later fragments, headers that are cut off. IPv6's extension headers are
    passed over.
    """
    read = _ip(packet, ip_bytes)
    if read is None or read.proto != IPPROTO_TCP or read.is_later_fragment:
        return None
    if read.payload_bytes < _TCP_HEADER_BYTES or len(packet) < read.header_bytes + _TCP_HEADER_BYTES:
        return None
    return _tcp(packet, read)


def decode_datagram(packet: bytes, ip_bytes: int = 0) -> Datagram | None:
    """The datagram in an IP packet, which may be cut off; None for TCP, and for what decode_ip gives None otherwise."""
    read = _ip(packet, ip_bytes)
    if read is None or read.proto == IPPROTO_TCP or read.is_later_fragment:
        return None
    header = _header(packet, read)
    if header is None:
        return None
    if read.proto not in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        return Datagram(header, read.payload_bytes, read.ip_id)
    rest = packet[read.header_bytes :]
    if len(rest) < _ICMP_HEADER_BYTES:
        return None
    kind, code = rest[0], rest[1]
    is_error = kind in ICMP_ERRORS if read.proto == IPPROTO_ICMP else kind < ICMPV6_FIRST_INFORMATIONAL
    quoted = rest[_ICMP_HEADER_BYTES:]
    about = _ip(quoted) if is_error else None
    return Datagram(header, read.payload_bytes, read.ip_id, kind, code, about and _header(quoted, about))


def icmp_name(datagram: Datagram) -> str:
    """The name of an ICMP message, "port unreachable" or "type 8 code 0"; empty for what is none."""
    if datagram.icmp_type is None or datagram.icmp_code is None:
        return ""
    names = _ICMP if datagram.header.proto == IPPROTO_ICMP else _ICMPV6
    message = (datagram.icmp_type, datagram.icmp_code)
    return names.get(message, f"type {message[0]} code {message[1]}")


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


class _Ip(NamedTuple):
    """What an IP packet's headers say: header_bytes are with IPv6's extensions, payload_bytes what follows them."""

    proto: int
    src: bytes
    dst: bytes
    header_bytes: int
    payload_bytes: int
    ip_id: int = 0
    is_fragment: bool = False
    is_later_fragment: bool = False


def _ip(packet: bytes, ip_bytes: int = 0) -> _Ip | None:
    """An IP packet's headers; None where they are cut off. Where BIG TCP leaves its length out, ip_bytes says it."""
    if len(packet) >= _IPV6_HEADER_BYTES and packet[0] >> 4 == 6:
        return _ipv6(packet, ip_bytes)
    if len(packet) < _IPV4_HEADER_BYTES or packet[0] >> 4 != 4:
        return None
    header_bytes = (packet[0] & 0xF) * 4
    if len(packet) < header_bytes:
        return None
    total_bytes, ip_id, fragment = _IPV4_LENGTH_ID_FRAGMENT.unpack_from(packet, 2)
    payload_bytes = (total_bytes or ip_bytes or len(packet)) - header_bytes
    later = bool(fragment & _FRAGMENT_OFFSET)
    part = later or bool(fragment & _MORE_FRAGMENTS)
    return _Ip(packet[9], packet[12:16], packet[16:20], header_bytes, payload_bytes, ip_id, part, later)


def _ipv6(packet: bytes, ip_bytes: int) -> _Ip | None:
    """As `_ip`: the extension headers are those that ipv6_skip_exthdr passes over (net/ipv6/exthdrs_core.c)."""
    proto, at = packet[6], _IPV6_HEADER_BYTES
    (said_bytes,) = _LENGTH.unpack_from(packet, 4)
    payload_bytes = said_bytes or max(ip_bytes or len(packet), at) - at
    fragment = 0
    while proto in _EXTENSIONS and not fragment & IPV6_FRAGMENT_OFFSET:
        if len(packet) < at + 8:
            return None
        kind, proto, words = proto, packet[at], packet[at + 1]
        if kind == _HOP_BY_HOP and not said_bytes and packet[at + 2 : at + 4] == _JUMBO_OPTION:
            (payload_bytes,) = _JUMBO_LENGTH.unpack_from(packet, at + 4)
        if kind == IPV6_FRAGMENT:
            (fragment,) = _LENGTH.unpack_from(packet, at + 2)
        at += 8 if kind == IPV6_FRAGMENT else (words + 2) * 4 if kind == _AUTHENTICATION else (words + 1) * 8
    later = bool(fragment & IPV6_FRAGMENT_OFFSET)
    part = later or bool(fragment & _IPV6_MORE_FRAGMENTS)
    payload_bytes -= at - _IPV6_HEADER_BYTES
    return _Ip(proto, packet[8:24], packet[24:40], at, payload_bytes, 0, part, later)


def _header(packet: bytes, read: _Ip) -> Tuple | None:
    """The header with the ports behind it, where it has some; None where it is cut off before them."""
    sport = dport = 0
    if read.proto in WITH_PORTS and not read.is_later_fragment:
        if len(packet) < read.header_bytes + _PORTS.size:
            return None
        sport, dport = _PORTS.unpack_from(packet, read.header_bytes)
    return Tuple(_address(read.src), sport, _address(read.dst), dport, read.proto)


def _tcp(packet: bytes, read: _Ip) -> Segment:
    start = read.header_bytes
    sport, dport, seq, ack, offset, flags, window = _TCP.unpack_from(packet, start)
    header_bytes = (offset >> 4) * 4
    options = _options(packet[start + _TCP_HEADER_BYTES : start + header_bytes], ack)
    is_syn = bool(flags & SYN)
    return Segment(
        _address(read.src),
        sport,
        _address(read.dst),
        dport,
        seq,
        ack,
        flags,
        window,
        read.payload_bytes - header_bytes,
        options.wscale if is_syn else None,
        read.ip_id,
        options.ts_val,
        options.ts_ecr,
        is_syn and options.sack_permitted,
        options.sack_edge,
        offset >> 4,
        read.is_fragment,
    )


class _Options(NamedTuple):
    wscale: int | None = None
    ts_val: int | None = None
    ts_ecr: int | None = None
    sack_permitted: bool = False
    sack_edge: int | None = None


def _options(options: bytes, ack: int) -> _Options:
    """What the options say, as the kernel reads them (tcp_parse_options, and conntrack's tcp_options and tcp_sack).

    None for what isn't there, is cut off or has another length than it must have. Of several selective acknowledgements
    the first counts, of other options the last.
    """
    if options.startswith(_ALIGNED_TIMESTAMP) and len(options) == 12:
        return _Options(None, *_TIMESTAMPS.unpack_from(options, 4))
    wscale: int | None = None
    ts_val: int | None = None
    ts_ecr: int | None = None
    sack_permitted = sack_seen = False
    sack = ack
    at = 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOP:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            break
        kind, length = options[at], options[at + 1]
        value = options[at + 2 : at + length]
        if len(value) != length - 2:
            break
        if kind == _OPTION_WSCALE and len(value) == 1:
            wscale = value[0]
        elif kind == _OPTION_TIMESTAMP and len(value) == _TIMESTAMPS.size:
            ts_val, ts_ecr = _TIMESTAMPS.unpack(value)
        elif kind == _OPTION_SACK_PERMITTED and not value:
            sack_permitted = True
        elif kind == _OPTION_SACK and not sack_seen and value and len(value) % _SACK_BLOCK.size == 0:
            sack_seen = True
            for _, right in _SACK_BLOCK.iter_unpack(value):
                sack = right if seq_diff(sack, right) < 0 else sack
        at += length
    return _Options(wscale, ts_val, ts_ecr, sack_permitted, sack if sack != ack else None)


@lru_cache(maxsize=1024)
def _address(packed: bytes) -> Address:
    return ip_address(packed)
