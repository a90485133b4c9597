"""conntrack's entries through ctnetlink: read, found, changed, deleted; what conntrack tells by itself is observed in
`observe/conntrack.py`.

Everything here acts in the calling thread's network namespace. An entry is named by its original direction's tuple.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Protocol

from netlab.linux.netlink import (
    NETLINK_NETFILTER,
    NFGENMSG,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSGHDR,
    attribute,
    attributes,
    dump,
    messages,
)

# include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h, netlink.h
_NFNL_SUBSYS_CTNETLINK = 1
NEW, _GET, DELETE = (_NFNL_SUBSYS_CTNETLINK << 8 | message for message in (0, 1, 2))
"""Message types: IPCTNL_MSG_CT_NEW tells of a new entry or a change of one, IPCTNL_MSG_CT_DELETE of one destroyed."""
_NLA_F_NESTED = 1 << 15
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_PROTOINFO, _CTA_ZONE, _CTA_TIMESTAMP = 1, 2, 3, 4, 18, 20
_CTA_TUPLE_MASTER, _CTA_TIMESTAMP_EVENT = 14, 27
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SRC_DST = {4: (1, 2), 6: (3, 4)}
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE, _CTA_WSCALE_ORIGINAL, _CTA_WSCALE_REPLY = 1, 1, 2, 3
_CTA_TIMESTAMP_STOP = 2
_NLMSG_ERROR = 2

Address = IPv4Address | IPv6Address


class Header(Protocol):
    """What names an entry: addresses, ports (0 for a protocol without), and the IP protocol's number."""

    @property
    def src(self) -> Address: ...
    @property
    def sport(self) -> int: ...
    @property
    def dst(self) -> Address: ...
    @property
    def dport(self) -> int: ...
    @property
    def proto(self) -> int: ...


class Tuple(NamedTuple):
    """A Header as the kernel tells it."""

    src: Address
    sport: int
    dst: Address
    dport: int
    proto: int


class Entry(NamedTuple):
    """An entry as a message has it. master is that of the connection it was expected by.

    status has the bits of enum ip_conntrack_status (nf_conntrack_common.h), tcp_state a number of enum tcp_conntrack
    (nf_conntrack_tcp.h). window_scales are those of the original direction and of the reply, in bits. stamp_ns is on
    CLOCK_REALTIME: when the event happened, or when the entry was destroyed. None where the message doesn't have it.
    """

    original: Tuple
    reply: Tuple
    master: Tuple | None
    zone: int
    status: int
    tcp_state: int | None
    window_scales: tuple[int, int] | None
    stamp_ns: int | None


def parse(body: bytes) -> Entry | None:
    """The entry in a message's attributes; None where one of its tuples is missing."""
    told = attributes(body)
    original, reply = _parse_tuple(told.get(_CTA_TUPLE_ORIG)), _parse_tuple(told.get(_CTA_TUPLE_REPLY))
    if original is None or reply is None:
        return None
    tcp = attributes(attributes(told.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    tcp_state, scales = tcp.get(_CTA_PROTOINFO_TCP_STATE), (tcp.get(_CTA_WSCALE_ORIGINAL), tcp.get(_CTA_WSCALE_REPLY))
    stamp = told.get(_CTA_TIMESTAMP_EVENT) or attributes(told.get(_CTA_TIMESTAMP, b"")).get(_CTA_TIMESTAMP_STOP)
    return Entry(
        original,
        reply,
        master=_parse_tuple(told.get(_CTA_TUPLE_MASTER)),
        zone=int.from_bytes(told.get(_CTA_ZONE, b""), "big"),
        status=int.from_bytes(told.get(_CTA_STATUS, b""), "big"),
        tcp_state=tcp_state[0] if tcp_state else None,
        window_scales=(scales[0][0], scales[1][0]) if scales[0] and scales[1] else None,
        stamp_ns=int.from_bytes(stamp, "big") if stamp else None,
    )


def _parse_tuple(body: bytes | None) -> Tuple | None:
    told = attributes(body or b"")
    ip, proto = attributes(told.get(_CTA_TUPLE_IP, b"")), attributes(told.get(_CTA_TUPLE_PROTO, b""))
    if len(ip) != 2 or _CTA_PROTO_NUM not in proto:
        return None
    src, dst = (ip_address(ip[kind]) for kind in sorted(ip))
    (sport,) = struct.unpack("!H", proto.get(_CTA_PROTO_SRC_PORT, b"\0\0"))
    (dport,) = struct.unpack("!H", proto.get(_CTA_PROTO_DST_PORT, b"\0\0"))
    return Tuple(src, sport, dst, dport, proto[_CTA_PROTO_NUM][0])


def entries() -> list[Entry]:
    """The entries that there are; OSError. Equivalent to `conntrack -L`."""
    return [found for body in dump(_GET) if (found := parse(body)) is not None]


def entry(header: Header) -> Entry | None:
    """The entry of that name, None where there is none; OSError.

    Equivalent to `conntrack -L -p PROTO -s SRC -d DST --sport SPORT --dport DPORT`.
    """
    return parse(_ask(_GET, header) or b"")


def window_scales(header: Header) -> tuple[int, int] | None:
    """By how many bits conntrack shifts the windows, of the original direction and of the reply; None as `entry`."""
    found = entry(header)
    return None if found is None else found.window_scales


def set_window_scales(header: Header, original: int, reply: int) -> bool:
    """Let conntrack shift the windows by so many bits; False where there is no such entry. OSError.

    The kernel passes over an entry whose ends did not both offer window scaling.
    """
    scales = attribute(_CTA_WSCALE_ORIGINAL, bytes([original])) + attribute(_CTA_WSCALE_REPLY, bytes([reply]))
    return _ask(NEW, header, _nest(_CTA_PROTOINFO, _nest(_CTA_PROTOINFO_TCP, scales))) is not None


def delete(header: Header) -> bool:
    """Delete the entry; False where there is none. OSError. Equivalent to `conntrack -D` with the words of `entry`."""
    return _ask(DELETE, header) is not None


def _ask(message_type: int, header: Header, change: bytes = b"") -> bytes | None:
    """What follows the nfgenmsg in the kernel's answer, nothing for a mere acknowledgement; None for no such entry."""
    family = socket.AF_INET if header.src.version == 4 else socket.AF_INET6
    body = NFGENMSG.pack(family, 0, 0) + _tuple(header) + change
    ack = 0 if message_type == _GET else NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netfilter:
        netfilter.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), message_type, NLM_F_REQUEST | ack, 1, 0) + body)
        kind, _, answer = next(messages(netfilter.recv(1 << 16)))
    if kind != _NLMSG_ERROR:
        return answer[NFGENMSG.size :]
    code = -struct.unpack_from("=i", answer)[0]
    if code == errno.ENOENT:
        return None
    if code:
        raise OSError(code, os.strerror(code), "ctnetlink")
    return b""


def _nest(kind: int, body: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, body)


def _tuple(header: Header) -> bytes:
    src, dst = _CTA_IP_SRC_DST[header.src.version]
    ip = attribute(src, header.src.packed) + attribute(dst, header.dst.packed)
    proto = (
        attribute(_CTA_PROTO_NUM, bytes([header.proto]))
        + attribute(_CTA_PROTO_SRC_PORT, struct.pack("!H", header.sport))
        + attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", header.dport))
    )
    return _nest(_CTA_TUPLE_ORIG, _nest(_CTA_TUPLE_IP, ip) + _nest(_CTA_TUPLE_PROTO, proto))
