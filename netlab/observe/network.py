"""What decides where a namespace's packets go, from rtnetlink, sock_diag and /proc/sys; and how it changes.

Reading it changes nothing. What the values are is `record/network.py`'s.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from netlab.errors import unsupported
from netlab.linux import netdevice, nft
from netlab.linux.netlink import (
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    Subscription,
    attributes,
    dumped,
    netlink_socket,
)
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.observe.sockets import DIAG_MSG_BYTES, DIAG_SPORT_AT, DIAG_SRC_AT, SOCK_DIAG_BY_FAMILY, diag_request
from netlab.record.events import InterfaceChange, NeighbourChange, NetworkChange, RouteChange
from netlab.record.network import (
    InterfaceState,
    ListeningSocket,
    Neighbour,
    NetworkState,
    NextHop,
    RouteState,
    RoutingRule,
)
from netlab.record.observers import ObserverId, ObserverKind

# include/uapi/linux/rtnetlink.h
_NEWLINK, _DELLINK, GETLINK = 16, 17, 18
_GETADDR = 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_GETRULE, GETQDISC = 34, 38
_GROUPS = (1, 3, 7, 11)
"""RTNLGRP_LINK, _NEIGH, _IPV4_ROUTE and _IPV6_ROUTE."""

IFINFOMSG, _IFADDRMSG, _RTMSG, _NDMSG = (
    struct.Struct("=BxHiII"),
    struct.Struct("=BBBBI"),
    struct.Struct("=BBBBBBBBI"),
    struct.Struct("=BxxxiHBB"),
)
_RTNEXTHOP = struct.Struct("=HBBi")
# if_link.h, if_addr.h, rtnetlink.h, neighbour.h, fib_rules.h
IFLA_IFNAME = 3
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_MASTER, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_INFO_KIND = 1, 4, 10, 16, 18, 1
_IFF_UP = 1
_OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH = 1, 4, 5, 6, 7, 8, 9
_RTA_CACHEINFO, _RTA_TABLE, _RTA_VIA, _RTAX_MTU = 12, 15, 18, 2
_RTM_F_CLONED, _RT_TABLE_LOCAL, _RTN_UNICAST, _RTN_MULTICAST = 0x200, 255, 1, 5
_ROUTE_KINDS = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_STATES = {1: "INCOMPLETE", 2: "REACHABLE", 4: "STALE", 8: "DELAY", 16: "PROBE", 32: "FAILED", 128: "PERMANENT"}
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 1, 2, 3, 6, 10, 15, 16
_FRA_OIFNAME, _FIB_RULE_INVERT = 17, 2
_OTHER_SELECTORS = {19: "l3mdev", 20: "uidrange", 22: "ipproto", 23: "sport", 24: "dport", 25: "dscp", 26: "flowlabel"}
"""FRA_* of what is only said to be there."""
_RULE_ACTIONS = {1: "table", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_USER_HZ = 100

_DIAG_QUEUES_AT, _INET_DIAG_SKV6ONLY = 56, 11  # inet_diag.h: idiag_rqueue and idiag_wqueue
_TCP_LISTEN, _TCP_CLOSE = 10, 7

_TRIES = 3
"""How often a dump is asked for anew that was interrupted by a change."""

SYSCTLS = (
    "net/core/somaxconn",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_forward_use_pmtu",
    "net/ipv4/ip_no_pmtu_disc",
    "net/ipv4/route/min_pmtu",
    "net/ipv4/icmp_ratelimit",
    "net/ipv4/icmp_ratemask",
    "net/ipv4/icmp_msgs_per_sec",
    "net/ipv4/conf/all/log_martians",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/tcp_abort_on_overflow",
    "net/ipv4/tcp_base_mss",
    "net/ipv4/tcp_challenge_ack_limit",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_invalid_ratelimit",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_mtu_probing",
    "net/ipv4/tcp_retries2",
    "net/ipv4/tcp_rfc1337",
    "net/ipv4/tcp_syn_retries",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/tcp_timestamps",
    "net/ipv4/tcp_tw_reuse",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/icmp/ratelimit",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_checksum",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst",
    "net/netfilter/nf_conntrack_tcp_loose",
    "net/netfilter/nf_conntrack_tcp_max_retrans",
    "net/netfilter/nf_conntrack_tcp_timeout_close",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_fin_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_last_ack",
    "net/netfilter/nf_conntrack_tcp_timeout_max_retrans",
    "net/netfilter/nf_conntrack_tcp_timeout_syn_recv",
    "net/netfilter/nf_conntrack_tcp_timeout_syn_sent",
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged",
    "net/netfilter/nf_conntrack_udp_timeout",
    "net/netfilter/nf_conntrack_udp_timeout_stream",
)
"""Those of a namespace that decide what becomes of a packet or of a connection, as paths below /proc/sys."""

PER_INTERFACE = ("rp_filter", "accept_local", "route_localnet", "forwarding")
"""Those of each interface, below net/ipv4/conf."""


class NetworkObserver:
    """How a namespace's interfaces, routes and neighbours change. Equivalent to `ip monitor link route neigh`.

    A neighbour that is found, or that nobody answers for, makes a message; one that goes stale, too.
    """

    def __init__(self, namespaces: Namespaces, netns: str, receive_buffer_bytes: int | None = None) -> None:
        self.id = ObserverId(ObserverKind.NETWORK, netns)
        self._netns = netns
        with unsupported("this kernel can't tell of changes"), namespaces.inside(netns):
            self._subscription = Subscription(_GROUPS, receive_buffer_bytes, NETLINK_ROUTE)
            self._ifnames = netdevice.ifnames()

    def fileno(self) -> int:
        """The descriptor that is readable when changes wait."""
        return self._subscription.fileno()

    def read(self) -> list[NetworkChange]:
        """The changes that wait, in the kernel's order."""
        changes: list[NetworkChange] = []
        for kind, _, body in self._subscription.read():
            now_ns = time.time_ns()
            if kind in (_NEWLINK, _DELLINK):
                index, ifname = interface_name(body)
                self._ifnames[index] = ifname
                interface = decode_interface(body, self._ifnames)
                changes.append(InterfaceChange(now_ns, self._netns, interface, kind == _DELLINK))
            elif kind in (_NEWROUTE, _DELROUTE):
                if route := decode_route(body, self._ifnames):
                    changes.append(RouteChange(now_ns, self._netns, route, kind == _DELROUTE))
            elif kind in (_NEWNEIGH, _DELNEIGH) and (neighbour := decode_neighbour(body, self._ifnames)):
                changes.append(NeighbourChange(now_ns, self._netns, neighbour, kind == _DELNEIGH))
        return changes

    def lost(self) -> int:
        """How many changes found the buffer full since this was last asked."""
        return self._subscription.lost()

    def close(self) -> None:
        """Stop observing."""
        self._subscription.close()


def network_state(namespaces: Namespaces, netns: str) -> NetworkState:
    """A namespace as it is now. UnsupportedError where the kernel doesn't say.

    Equivalent to `ip address; ip route show table all; ip rule; ip neigh; ss -lntu; sysctl net`, and
    `nft -s -a list ruleset`.
    """
    time_ns = time.time_ns()
    with unsupported("the kernel doesn't say"), namespaces.inside(netns):
        with netlink_socket(NETLINK_ROUTE) as sock:
            links = _asked(sock, GETLINK, bytes(IFINFOMSG.size))
            ifnames = dict(map(interface_name, links))
            addresses = _addresses(_asked(sock, _GETADDR, bytes(_IFADDRMSG.size)))
            routes = _of_both_families(sock, _GETROUTE)
            rules = _of_both_families(sock, _GETRULE)
            neighbours = _asked(sock, _GETNEIGH, bytes(_NDMSG.size))
        with netlink_socket(NETLINK_SOCK_DIAG) as sock:
            listening = tuple(_listening(sock))
        sysctls = tuple(_sysctls(ifnames.values()))
        ruleset = None
        with suppress(OSError):  # without libnftables the rest is still worth having
            ruleset = nft.ruleset_with_handles()
    return NetworkState(
        time_ns=time_ns,
        netns=netns,
        interfaces=tuple(
            replace(decode_interface(body, ifnames), addresses=tuple(addresses.get(interface_name(body)[0], ())))
            for body in links
        ),
        routes=tuple(route for body in routes if (route := decode_route(body, ifnames))),
        rules=tuple(rule for body in rules if (rule := decode_rule(body))),
        neighbours=tuple(neighbour for body in neighbours if (neighbour := decode_neighbour(body, ifnames))),
        listening=listening,
        sysctls=sysctls,
        ruleset=ruleset,
    )


def _asked(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """A whole dump: one that a change interrupted is asked for again."""
    for _ in range(_TRIES - 1):
        with suppress(InterruptedError):
            return dumped(sock, kind, body)
    return dumped(sock, kind, body)


def _of_both_families(sock: socket.socket, kind: int) -> list[bytes]:
    """A dump of IPv4's, and of IPv6's where the kernel has it: one without answers with what it has of any family."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [(family, _asked(sock, kind, bytes([family]).ljust(_RTMSG.size, b"\0"))) for family in families]
    return [body for family, bodies in found for body in bodies if body[0] == family]


def _addresses(bodies: Iterable[bytes]) -> dict[int, list[tuple[Address, int]]]:
    """Addresses with their prefix lengths, by the interface's index."""
    found: dict[int, list[tuple[Address, int]]] = {}
    for body in bodies:
        _, prefix_length, _, _, index = _IFADDRMSG.unpack_from(body)
        told = attributes(body[_IFADDRMSG.size :])
        address = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
        if address:
            found.setdefault(index, []).append((ip_address(address), prefix_length))
    return found


def _listening(sock: socket.socket) -> Iterator[ListeningSocket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for proto, state in ((socket.IPPROTO_TCP, _TCP_LISTEN), (socket.IPPROTO_UDP, _TCP_CLOSE)):
            for body in dumped(sock, SOCK_DIAG_BY_FAMILY, diag_request(family, proto, states=1 << state)):
                (port,) = struct.unpack_from("!H", body, DIAG_SPORT_AT)
                queued, backlog = struct.unpack_from("=II", body, _DIAG_QUEUES_AT)
                only = attributes(body[DIAG_MSG_BYTES:]).get(_INET_DIAG_SKV6ONLY, b"\0")
                width = 4 if family == socket.AF_INET else 16
                yield ListeningSocket(
                    proto=int(proto),
                    address=ip_address(body[DIAG_SRC_AT : DIAG_SRC_AT + width]),
                    port=port,
                    queued=queued,
                    backlog=backlog if proto == socket.IPPROTO_TCP else 0,
                    only_ipv6=bool(only[0]),
                )


def _sysctls(ifnames: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the calling thread's network namespace that the kernel has, by their names with dots."""
    own = (f"net/ipv4/conf/{ifname}/{name}" for ifname in ifnames for name in PER_INTERFACE)
    for key in (*SYSCTLS, *own):
        with suppress(OSError):
            value = Path("/proc/sys", key).read_text().strip()
            yield ".".join(part.replace(".", "/") for part in key.split("/")), value


def interface_name(body: bytes) -> tuple[int, str]:
    """Index and name in an RTM_NEWLINK message's body."""
    _, _, index, _, _ = IFINFOMSG.unpack_from(body)
    return index, _text(attributes(body[IFINFOMSG.size :]).get(IFLA_IFNAME, b""))


def decode_interface(body: bytes, ifnames: Mapping[int, str]) -> InterfaceState:
    """An interface from an RTM_NEWLINK message's body; without its addresses, which are told apart from it."""
    _, _, _, flags, _ = IFINFOMSG.unpack_from(body)
    told = attributes(body[IFINFOMSG.size :])
    operstate = told.get(_IFLA_OPERSTATE, b"\0")[0]
    return InterfaceState(
        ifname=_text(told.get(IFLA_IFNAME, b"")),
        up=bool(flags & _IFF_UP),
        operstate=_OPERSTATES[operstate] if operstate < len(_OPERSTATES) else str(operstate),
        mtu=_number(told.get(_IFLA_MTU)),
        lladdr=told.get(_IFLA_ADDRESS, b"").hex(":"),
        kind=_text(attributes(told.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")),
        master=ifnames.get(_number(told.get(_IFLA_MASTER)), ""),
    )


def decode_route(body: bytes, ifnames: Mapping[int, str]) -> RouteState | None:
    """A route from an RTM_NEWROUTE message's body; None for one of the table local, and for multicast."""
    family, prefix_length, _, _, small_table, _, _, kind, flags = _RTMSG.unpack_from(body)
    told = attributes(body[_RTMSG.size :])
    table = _number(told.get(_RTA_TABLE)) or small_table
    destination = ip_address(told.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16))
    if table == _RT_TABLE_LOCAL or kind == _RTN_MULTICAST or destination.is_multicast:
        return None
    learned = bool(flags & _RTM_F_CLONED)
    expires = struct.unpack_from("=i", told[_RTA_CACHEINFO], 8)[0] if _RTA_CACHEINFO in told else 0
    mtu = attributes(told.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
    source = told.get(_RTA_PREFSRC)
    return RouteState(
        destination=destination,
        prefix_length=prefix_length,
        kind=_ROUTE_KINDS.get(kind, str(kind)),
        table=table,
        next_hops=tuple(_next_hops(told, ifnames)) if kind == _RTN_UNICAST else (),
        metric=_number(told.get(_RTA_PRIORITY)),
        source=ip_address(source) if source else None,
        mtu=_number(mtu) if mtu else None,
        learned=learned,
        expires_ms=expires * 1000 // _USER_HZ if learned and expires else None,
    )


def _next_hops(told: Mapping[int, bytes], ifnames: Mapping[int, str]) -> Iterator[NextHop]:
    if _RTA_MULTIPATH not in told:
        yield NextHop(ifnames.get(_number(told.get(_RTA_OIF)), ""), _gateway(told))
        return
    data, at = told[_RTA_MULTIPATH], 0
    while at + _RTNEXTHOP.size <= len(data):
        length, _, hops, index = _RTNEXTHOP.unpack_from(data, at)
        if length < _RTNEXTHOP.size:
            return
        own = attributes(data[at + _RTNEXTHOP.size : at + length])
        yield NextHop(ifnames.get(index, ""), _gateway(own), hops + 1)
        at += (length + 3) & ~3


def _gateway(told: Mapping[int, bytes]) -> Address | None:
    """RTA_GATEWAY, or RTA_VIA, which says its family before it: an IPv6 gateway of an IPv4 route."""
    packed = told.get(_RTA_GATEWAY) or told.get(_RTA_VIA, b"")[2:]
    return ip_address(packed) if packed else None


def decode_rule(body: bytes) -> RoutingRule | None:
    """A rule from an RTM_NEWRULE message's body (struct fib_rule_hdr); None for one of another family than IP's."""
    family, dst_len, src_len, _, small_table, _, _, action, flags = _RTMSG.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    told = attributes(body[_RTMSG.size :])
    words = ["not"] if flags & _FIB_RULE_INVERT else []
    for name, kind, length in (("from", _FRA_SRC, src_len), ("to", _FRA_DST, dst_len)):
        if kind in told:
            words += [name, f"{ip_address(told[kind])}/{length}"]
    if _FRA_FWMARK in told:
        words += ["fwmark", f"{_number(told[_FRA_FWMARK]):#x}/{_number(told.get(_FRA_FWMASK)):#x}"]
    words += [
        word
        for name, kind in (("iif", _FRA_IIFNAME), ("oif", _FRA_OIFNAME))
        if kind in told
        for word in (name, _text(told[kind]))
    ]
    words += [name for kind, name in _OTHER_SELECTORS.items() if any(told.get(kind, b""))]
    return RoutingRule(
        priority=_number(told.get(_FRA_PRIORITY)),
        version=4 if family == socket.AF_INET else 6,
        action=_RULE_ACTIONS.get(action, str(action)),
        table=_number(told.get(_FRA_TABLE)) or small_table,
        selector=" ".join(words),
    )


def decode_neighbour(body: bytes, ifnames: Mapping[int, str]) -> Neighbour | None:
    """A neighbour from an RTM_NEWNEIGH message's body; None for one that needs no address (multicast, a bridge's)."""
    family, index, state, _, _ = _NDMSG.unpack_from(body)
    told = attributes(body[_NDMSG.size :])
    if family not in (socket.AF_INET, socket.AF_INET6) or state not in _NUD_STATES or _NDA_DST not in told:
        return None
    lladdr = told.get(_NDA_LLADDR, b"").hex(":")
    return Neighbour(ifnames.get(index, ""), ip_address(told[_NDA_DST]), lladdr, _NUD_STATES[state])


def _number(packed: bytes | None) -> int:
    return int.from_bytes(packed or b"", sys.byteorder)


def _text(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="replace")
