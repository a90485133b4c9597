"""rtnetlink requests as bytes: the few that a build sends by the thousand.

Pure: a request goes in as values and comes out as one netlink message, to be joined with others and sent at once by
`lab/apply.py`. pyroute2 encodes the same messages (a test holds ours against its, byte for byte), but loading it takes
longer than building a small lab, and encoding longer than the kernel's own work; all that is rare goes through it.

Numbers are those of include/uapi/linux/{rtnetlink,if_link,if_addr,netlink}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Protocol, TypeAlias

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_CREATE = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL

_IFF_UP = 0x1

_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 3, 10, 18, 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x2, 0x200

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RT_TABLE_MAIN, _RTPROT_BOOT = 254, 3
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
ROUTE_KINDS = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}
"""rtm_type of each kind of route (RTN_*)."""

_header = struct.Struct("=IHHII")
_ifinfomsg = struct.Struct("=BxHiII")
_ifaddrmsg = struct.Struct("=BBBBI")
_rtmsg = struct.Struct("=BBBBBBBBI")
_attribute = struct.Struct("=HH")
_u32_attribute = struct.Struct("=HHI")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    """A whole message with sequence number 0; the sender numbers it with `numbered`."""
    return _header.pack(_header.size + len(body), kind, flags, 0, 0) + body


def numbered(message: bytes, sequence: int, *, ack: bool) -> bytes:
    """The message with its sequence number, asking for an acknowledgement or only for errors."""
    length, kind, flags, _, _ = _header.unpack_from(message)
    return _header.pack(length, kind, flags | (NLM_F_ACK if ack else 0), sequence, 0) + message[_header.size :]


def _attr(kind: int, payload: bytes) -> bytes:
    length = _attribute.size + len(payload)
    return _attribute.pack(length, kind) + payload + bytes(-length % 4)


def _u32(kind: int, value: int) -> bytes:
    return _u32_attribute.pack(8, kind, value)


def _string(kind: int, text: str) -> bytes:
    return _attr(kind, text.encode(errors="surrogateescape") + b"\0")


Attributes: TypeAlias = Iterable[tuple[int, int | bytes]]
"""Attributes by their numbers; an int is a u32."""


def _attributes(attributes: Attributes) -> bytes:
    return b"".join(_u32(n, value) if isinstance(value, int) else _attr(n, value) for n, value in attributes)


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _ifinfomsg.pack(socket.AF_UNSPEC, 0, index, flags, change)


def peer(ifname: str, index: int, attributes: Attributes, netns_fd: int) -> bytes:
    """The other end of a new link, in another namespace: what VETH_INFO_PEER holds."""
    return _link(index) + _string(_IFLA_IFNAME, ifname) + _u32(_IFLA_NET_NS_FD, netns_fd) + _attributes(attributes)


def new_link(
    ifname: str, index: int, kind: str, attributes: Attributes = (), master: int | None = None, data: Attributes = ()
) -> bytes:
    """A link of a kind, down. data are the attributes that only the kind has.

    Equivalent to `ip link add IFNAME index I master M type KIND …`.
    """
    info = _attr(_IFLA_INFO_KIND, kind.encode()) + _attr(_IFLA_INFO_DATA, _attributes(data))
    body = _link(index) + _string(_IFLA_IFNAME, ifname) + _attributes(attributes)
    if master is not None:
        body += _u32(_IFLA_MASTER, master)
    return _message(RTM_NEWLINK, _CREATE, body + _attr(_IFLA_LINKINFO, info))


def set_link(index: int, attributes: Attributes, master: int | None) -> bytes:
    """Change an interface's attributes and bridge; master 0 is no bridge, None the one that it has.

    Equivalent to `ip link set IFNAME mtu M … master B|nomaster`.
    """
    body = _link(index) + _attributes(attributes) + (b"" if master is None else _u32(_IFLA_MASTER, master))
    return _message(RTM_NEWLINK, NLM_F_REQUEST, body)


def set_up(index: int, *, up: bool) -> bytes:
    """Equivalent to `ip link set IFNAME up` (or `down`)."""
    return _message(RTM_NEWLINK, NLM_F_REQUEST, _link(index, _IFF_UP if up else 0, _IFF_UP))


def no_link_local(index: int) -> bytes:
    """No IPv6 link-local address by itself. Equivalent to `ip link set IFNAME addrgenmode none`."""
    mode = _attr(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
    body = _link(index) + _attr(_IFLA_AF_SPEC, _attr(socket.AF_INET6, mode))
    return _message(RTM_NEWLINK, NLM_F_REQUEST, body)


def del_link(index: int) -> bytes:
    """Equivalent to `ip link del IFNAME`; a veth's peer goes with it."""
    return _message(RTM_DELLINK, NLM_F_REQUEST, _link(index))


def _address(index: int, address: IPv4Interface | IPv6Interface, flags: int = 0) -> bytes:
    packed = address.ip.packed
    prefix = address.network.prefixlen
    if address.version == 6:
        # Without duplicate address detection: the address is usable at once, and the lab's addresses are unique.
        body = _ifaddrmsg.pack(socket.AF_INET6, prefix, _IFA_F_NODAD, 0, index) + _attr(_IFA_ADDRESS, packed)
        return body + (_u32(_IFA_FLAGS, flags | _IFA_F_NODAD) if flags else b"")
    body = _ifaddrmsg.pack(socket.AF_INET, prefix, 0, 0, index)
    body += _attr(_IFA_LOCAL, packed) + _attr(_IFA_ADDRESS, packed)
    if prefix < 31:
        body += _attr(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return body + (_u32(_IFA_FLAGS, flags) if flags else b"")


def new_address(index: int, address: IPv4Interface | IPv6Interface, *, prefix_route: bool = True) -> bytes:
    """Equivalent to `ip addr add ADDRESS broadcast + dev IFNAME` (IPv6: `nodad`; no prefix_route: `noprefixroute`)."""
    flags = 0 if prefix_route else _IFA_F_NOPREFIXROUTE
    return _message(RTM_NEWADDR, _CREATE, _address(index, address, flags))


def del_address(index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    """Equivalent to `ip addr del ADDRESS dev IFNAME`."""
    return _message(RTM_DELADDR, NLM_F_REQUEST, _address(index, address))


class Route(Protocol):
    """A route but its interface; kind is one of ROUTE_KINDS."""

    @property
    def dst(self) -> IPv4Network | IPv6Network: ...
    @property
    def via(self) -> IPv4Address | IPv6Address | None: ...
    @property
    def src(self) -> IPv4Address | IPv6Address | None: ...
    @property
    def metric(self) -> int | None: ...
    @property
    def kind(self) -> str: ...


def _route(route: Route, index: int | None) -> bytes:
    family = socket.AF_INET if route.dst.version == 4 else socket.AF_INET6
    on_link = route.via is None and route.kind == "unicast" and family == socket.AF_INET
    scope = _RT_SCOPE_LINK if on_link else _RT_SCOPE_UNIVERSE
    kind = ROUTE_KINDS[route.kind]
    body = [_rtmsg.pack(family, route.dst.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, kind, 0)]
    if route.dst.prefixlen:
        body.append(_attr(_RTA_DST, route.dst.network_address.packed))
    if route.via is not None:
        body.append(_attr(_RTA_GATEWAY, route.via.packed))
    if index is not None:
        body.append(_u32(_RTA_OIF, index))
    if route.src is not None:
        body.append(_attr(_RTA_PREFSRC, route.src.packed))
    if route.metric is not None:
        body.append(_u32(_RTA_PRIORITY, route.metric))
    return b"".join(body)


def new_route(route: Route, index: int | None) -> bytes:
    """index is that of its interface. Equivalent to `ip route add KIND DST via GATEWAY dev IFNAME src SRC metric M`."""
    return _message(RTM_NEWROUTE, _CREATE, _route(route, index))


def del_route(route: Route, index: int | None) -> bytes:
    """Equivalent to `ip route del …` with the words of `new_route`."""
    return _message(RTM_DELROUTE, NLM_F_REQUEST, _route(route, index))


def errors(reply: bytes) -> list[tuple[int, int, str]]:
    """The NLMSG_ERROR messages of a datagram as (sequence, errno or 0 for an acknowledgement, the kernel's words)."""
    found = []
    offset = 0
    while offset + _header.size <= len(reply):
        length, kind, flags, sequence, _ = _header.unpack_from(reply, offset)
        if length < _header.size:
            break
        if kind == 2:  # NLMSG_ERROR
            (code,) = struct.unpack_from("=i", reply, offset + _header.size)
            words = reply[offset + _header.size + 4 + _header.size : offset + length] if flags & 0x200 else b""
            found.append((sequence, -code, _extack(words)))
        offset += (length + 3) & ~3
    return found


def _extack(attributes: bytes) -> str:
    """NLMSGERR_ATTR_MSG of an error that is capped (NETLINK_CAP_ACK), or nothing."""
    offset = 0
    while offset + _attribute.size <= len(attributes):
        length, kind = _attribute.unpack_from(attributes, offset)
        if kind == 1:
            return attributes[offset + _attribute.size : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += max((length + 3) & ~3, _attribute.size)
    return ""
