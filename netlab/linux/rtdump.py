"""What rtnetlink tells of the calling thread's network namespace: its links, addresses and routes, as plain values.

Read are the attributes by which labs are compared, and no others: a generic decoder spends 20 times as long on the
rest. Numbers are those of include/uapi/linux/{rtnetlink,if_link,if_addr}.h. OSError, EBADMSG for what can't be decoded.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

from netlab.linux.netlink import NETLINK_ROUTE, dumped

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 22, 26
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12  # include/uapi/linux/netlink.h
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
_TRIES = 20

_ifinfomsg = struct.Struct("=BxHiII")
_ifaddrmsg = struct.Struct("=BBBBI")
_rtmsg = struct.Struct("=BBBBBBBBI")
_attribute = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_TXQLEN = 1, 3, 4, 5, 10, 13
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP, _IFLA_EXT_MASK = 18, 20, 27, 29
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_GSO_MAX_SEGS, _IFLA_GSO_MAX_SIZE, _IFLA_GRO_MAX_SIZE = 40, 41, 58
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_IFF_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NOPREFIXROUTE = 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RTPROT_RA = 254, 2, 9
_RTM_F_CLONED = 0x200
_ADDRESS_BYTES = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}


class Link(NamedTuple):
    """One interface. link is the ifindex of a veth's other end, master that of its bridge; data are the numbers of its
    kind (IFLA_INFO_DATA) that were asked for. None is what this kernel doesn't tell."""

    ifindex: int
    ifname: str
    kind: str
    up: bool
    master: int | None
    link: int | None
    mac: str | None
    mtu: int | None
    txqlen: int | None
    alias: str | None
    group: int | None
    num_tx_queues: int | None
    num_rx_queues: int | None
    gso_max_segs: int | None
    gso_max_size: int | None
    gro_max_size: int | None
    data: tuple[tuple[int, int], ...]


class Address(NamedTuple):
    """An address of an interface: 4 or 16 bytes, its prefix length, whether the kernel made a route to its subnet."""

    ifindex: int
    address: bytes
    prefixlen: int
    prefix_route: bool


class Route(NamedTuple):
    """A route that somebody has added to the main table. kind is its RTN_*; dst has 4 or 16 bytes."""

    dst: bytes
    prefixlen: int
    kind: int
    via: bytes | None
    ifindex: int | None
    src: bytes | None
    metric: int | None


class Told(NamedTuple):
    """What a namespace has, in the kernel's order. cookie is a number that no other namespace gets before the next boot
    (SO_NETNS_COOKIE, since Linux 5.14), 0 where the kernel gives none."""

    cookie: int
    links: tuple[Link, ...]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]


def told(data_numbers: Mapping[str, frozenset[int]]) -> Told:
    """All there is. data_numbers are the attributes of IFLA_INFO_DATA to be read, by the kind of link.

    Equivalent to `ip -d link; ip address; ip route show table main; ip -6 route show table main`.
    """
    with rtnetlink() as sock:
        for _ in range(_TRIES):
            links = tuple(link(body, data_numbers) for body in dump(sock, RTM_GETLINK, LINKS))
            addresses = tuple(each for body in dump(sock, RTM_GETADDR, ADDRESSES) if (each := address(body)))
            routes = tuple(found for body in dump(sock, RTM_GETROUTE, ROUTES) if (found := route(body)))
            # Three dumps are three moments: a link that came between them is looked at again.
            if {each.ifindex for each in addresses} <= {each.ifindex for each in links}:
                return Told(_cookie(sock), links, addresses, routes)
    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), "rtnetlink")


LINKS = _ifinfomsg.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + struct.pack("=HHI", 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
ADDRESSES = _ifaddrmsg.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
ROUTES = _rtmsg.pack(socket.AF_UNSPEC, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)


@contextmanager
def rtnetlink() -> Iterator[socket.socket]:
    """A socket for dumps. Where the kernel can (since Linux 5.0) it heeds what a request asks for: one table alone."""
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)) as sock:
        with suppress(OSError):
            sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        yield sock


def dump(sock: socket.socket, message_type: int, body: bytes) -> list[bytes]:
    """The bodies of the answer, asked for again where something changed meanwhile."""
    for _ in range(_TRIES - 1):
        with suppress(InterruptedError):
            return dumped(sock, message_type, body)
    return dumped(sock, message_type, body)


def _cookie(sock: socket.socket) -> int:
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError:
        return 0


def malformed() -> OSError:
    """What is raised for a message that isn't as the kernel's headers have it."""
    return OSError(errno.EBADMSG, os.strerror(errno.EBADMSG), "rtnetlink")


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from an offset on, by their numbers; OSError where one doesn't fit."""
    found, end = {}, len(data)
    while end - at >= _attribute.size:
        length, kind = _attribute.unpack_from(data, at)
        if length < _attribute.size or at + length > end:
            raise malformed()
        found[kind & _TYPE_MASK] = data[at + _attribute.size : at + length]
        at += (length + 3) & ~3
    return found


def header(form: struct.Struct, body: bytes) -> tuple[int, ...]:
    """What stands before the attributes; OSError where it doesn't fit."""
    if len(body) < form.size:
        raise malformed()
    return form.unpack_from(body)


def _number(value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) not in (1, 2, 4, 8):
        raise malformed()
    return int.from_bytes(value, sys.byteorder)


def string(value: bytes) -> str:
    """A string with its NUL; bytes that are no UTF-8 stay apart (surrogateescape)."""
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def link(body: bytes, data_numbers: Mapping[str, frozenset[int]]) -> Link:
    """The interface that an RTM_NEWLINK tells of."""
    _, _, index, flags, _ = header(_ifinfomsg, body)
    told = attributes(body, _ifinfomsg.size)
    info = attributes(told[_IFLA_LINKINFO]) if _IFLA_LINKINFO in told else {}
    kind = string(info.get(_IFLA_INFO_KIND, b""))
    asked = data_numbers.get(kind)
    data: tuple[tuple[int, int], ...] = ()
    if asked and _IFLA_INFO_DATA in info:
        own = attributes(info[_IFLA_INFO_DATA])
        data = tuple((number, _number(own[number]) or 0) for number in sorted(asked) if number in own)
    if _IFLA_IFNAME not in told:
        raise malformed()
    mac, alias = told.get(_IFLA_ADDRESS), told.get(_IFLA_IFALIAS)
    return Link(
        index,
        string(told[_IFLA_IFNAME]),
        kind,
        bool(flags & _IFF_UP),
        _number(told.get(_IFLA_MASTER)),
        _number(told.get(_IFLA_LINK)),
        None if mac is None else mac.hex(":"),
        _number(told.get(_IFLA_MTU)),
        _number(told.get(_IFLA_TXQLEN)),
        None if alias is None else string(alias),
        _number(told.get(_IFLA_GROUP)),
        _number(told.get(_IFLA_NUM_TX_QUEUES)),
        _number(told.get(_IFLA_NUM_RX_QUEUES)),
        _number(told.get(_IFLA_GSO_MAX_SEGS)),
        _number(told.get(_IFLA_GSO_MAX_SIZE)),
        _number(told.get(_IFLA_GRO_MAX_SIZE)),
        data,
    )


def _ip(value: bytes | None, family: int) -> bytes | None:
    if value is not None and len(value) != _ADDRESS_BYTES[family]:
        raise malformed()
    return value


def address(body: bytes) -> Address | None:
    """The address that an RTM_NEWADDR tells of; None of a family that is neither IPv4 nor IPv6."""
    family, prefixlen, flags, _, index = header(_ifaddrmsg, body)
    if family not in _ADDRESS_BYTES:
        return None
    told = attributes(body, _ifaddrmsg.size)
    # Of a point-to-point address IFA_ADDRESS is the other end.
    found = _ip(told.get(_IFA_LOCAL, told.get(_IFA_ADDRESS)), family)
    if found is None or prefixlen > 8 * len(found):
        raise malformed()
    return Address(index, found, prefixlen, not (_number(told.get(_IFA_FLAGS)) or flags) & _IFA_F_NOPREFIXROUTE)


def route(body: bytes) -> Route | None:
    """The route that an RTM_NEWROUTE tells of; None of another table or family, for one that the kernel has made by
    itself, and for what it has cloned of a route to remember a path's MTU."""
    family, prefixlen, _, _, table, proto, _, kind, flags = header(_rtmsg, body)
    if family not in _ADDRESS_BYTES or flags & _RTM_F_CLONED or proto in (_RTPROT_KERNEL, _RTPROT_RA):
        return None
    told = attributes(body, _rtmsg.size)
    if (_number(told.get(_RTA_TABLE)) or table) != _RT_TABLE_MAIN:
        return None
    size = _ADDRESS_BYTES[family]
    if prefixlen > 8 * size:
        raise malformed()
    return Route(
        _ip(told.get(_RTA_DST), family) or bytes(size),
        prefixlen,
        kind,
        _ip(told.get(_RTA_GATEWAY), family),
        _number(told.get(_RTA_OIF)),
        _ip(told.get(_RTA_PREFSRC), family),
        _number(told.get(_RTA_PRIORITY)),
    )
