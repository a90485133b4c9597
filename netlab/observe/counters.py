"""A namespace's counters before and after: SNMP's as `nstat` shows them, conntrack's as `conntrack -S` does, nftables',
and what its interfaces and their qdiscs dropped.

Of nftables' those that have a name: `nft list counters`. Reading them changes nothing. They count for the whole
namespace, not for one flow.
"""

from __future__ import annotations

import re
import struct
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from netlab.linux import nft
from netlab.linux.netlink import NETLINK_ROUTE, attributes, dump, dumped, netlink_socket
from netlab.observe import Namespaces
from netlab.observe.network import GETLINK, GETQDISC, IFINFOMSG, interface_name
from netlab.record.events import CounterChange

_GET_STATS_CPU = 1 << 8 | 4  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS_CPU

_CONNTRACK = {
    2: "found",
    4: "invalid",
    8: "insert",
    9: "insert_failed",
    10: "drop",
    11: "early_drop",
    12: "error",
    13: "search_restart",
    14: "clash_resolve",
    15: "chaintoolong",
}
"""enum ctattr_stats_cpu of nfnetlink_conntrack.h, but for those that are no longer used."""

_NFT_LINE = re.compile(r"\t?(?:(table) \S+|counter) (\S+) \{")
_NFT_PACKETS = re.compile(r"\s+packets (\d+) bytes \d+")

_GAUGES = ("Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.CurrEstab")
"""What stands among the counters without counting."""


_IFLA_STATS64, _TCA_STATS2, _TCA_STATS_QUEUE = 23, 7, 3  # if_link.h, rtnetlink.h, gen_stats.h
_TCMSG_BYTES, _TCM_IFINDEX_AT, _TC_H_ROOT = 20, 4, 0xFFFFFFFF
_LINK_STATS = ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
"""Of struct rtnl_link_stats64, from its fifth member on."""
_QUEUE_STATS = ("qdisc.drops", "qdisc.requeues", "qdisc.overlimits")
"""Of struct gnet_stats_queue, from its third member on."""

_Key: TypeAlias = tuple[str, str]
"""An interface, or "" for all of the namespace, and a counter's name."""


class Counters:
    """A namespace's counters as they are when this is made; those of nftables where it is said to have some.

    By name: "Ip.InReceives", "TcpExt.ListenDrops", "IcmpMsg.OutType3", "Ip6InNoRoutes" are SNMP's, "conntrack.invalid"
    conntrack's, "TABLE.COUNTER" nftables'; of each interface "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", and
    of its root qdisc "qdisc.drops", "qdisc.requeues", "qdisc.overlimits".
    """

    def __init__(self, namespaces: Namespaces, netns: str, *, nftables: bool = False) -> None:
        self._namespaces, self._netns, self._nftables = namespaces, netns, nftables
        self._before = self._read()

    def grown(self, name: str) -> int | None:
        """How far one counter has gone since; None where there is none of that name."""
        now, key = self._read(), ("", name)
        return now[key] - self._before[key] if key in now else None

    def changes(self) -> list[CounterChange]:
        """What has changed since, by name; from now on, since now."""
        before, self._before = self._before, self._read()
        now_ns = time.time_ns()
        return [
            CounterChange(now_ns, self._netns, name, by, ifname)
            for (ifname, name), value in sorted(self._before.items())
            if (by := value - before[ifname, name])
        ]

    def _read(self) -> Counter[_Key]:
        counters = _read(self._namespaces, self._netns)
        if self._nftables:
            with self._namespaces.inside(self._netns):
                counters.update(parse_nft(nft.run("list counters")))
        found = Counter({("", name): value for name, value in counters.items()})
        found.update(_of_interfaces(self._namespaces, self._netns))
        return found


def _read(namespaces: Namespaces, netns: str) -> Counter[str]:
    counters: Counter[str] = Counter()
    with namespaces.inside(netns):
        for file in ("snmp", "netstat", "snmp6"):
            path = Path("/proc/thread-self/net", file)  # /proc/net is the process's first thread's
            if path.exists():  # a kernel without IPv6 has no snmp6
                counters.update(parse_proc(path.read_text()))
        try:
            cpus = dump(_GET_STATS_CPU)
        except OSError:  # no ctnetlink: no conntrack, or no way to ask it
            cpus = []
    for cpu in cpus:
        told = attributes(cpu)
        counters.update(
            {f"conntrack.{name}": int.from_bytes(told.get(k, b""), "big") for k, name in _CONNTRACK.items()}
        )
    return counters


def _of_interfaces(namespaces: Namespaces, netns: str) -> Counter[_Key]:
    """What the interfaces and their qdiscs dropped. Equivalent to `ip -s link; tc -s qdisc`."""
    found: Counter[_Key] = Counter()
    with namespaces.inside(netns), netlink_socket(NETLINK_ROUTE) as sock:
        ifnames: dict[int, str] = {}
        for body in dumped(sock, GETLINK, bytes(IFINFOMSG.size)):
            index, ifname = interface_name(body)
            ifnames[index] = ifname
            stats = attributes(body[IFINFOMSG.size :]).get(_IFLA_STATS64, b"")
            if len(stats) >= 8 * 8:
                numbers = struct.unpack_from("=4Q", stats, 4 * 8)
                found.update({(ifname, name): n for name, n in zip(_LINK_STATS, numbers, strict=True)})
        for body in dumped(sock, GETQDISC, bytes(_TCMSG_BYTES)):
            index, _, parent = struct.unpack_from("=iII", body, _TCM_IFINDEX_AT)
            stats = attributes(attributes(body[_TCMSG_BYTES:]).get(_TCA_STATS2, b"")).get(_TCA_STATS_QUEUE, b"")
            if parent == _TC_H_ROOT and index in ifnames and len(stats) >= 4 * 5:
                numbers = struct.unpack_from("=3I", stats, 8)
                found.update({(ifnames[index], name): n for name, n in zip(_QUEUE_STATS, numbers, strict=True)})
    return found


def parse_nft(text: str) -> dict[str, int]:
    """The packets in what `nft list counters` prints, by table and counter: "tour.related"."""
    counters: dict[str, int] = {}
    table = counter = ""
    for line in text.splitlines():
        if found := _NFT_LINE.match(line):
            kind, name = found.groups()
            table, counter = (name, "") if kind == "table" else (table, name)
        elif counter and (found := _NFT_PACKETS.match(line)):
            counters[f"{table}.{counter}"] = int(found[1])
    return counters


def parse_proc(text: str) -> dict[str, int]:
    """The counters in /proc/net/snmp or netstat ("Tcp: InSegs …" above "Tcp: 12 …") or in snmp6 ("Ip6InReceives 12").

    The names are those of the files: "Tcp.InSegs", "TcpExt.TCPTimeouts", "Ip6InReceives".
    """
    counters: dict[str, int] = {}
    lines = [line.split() for line in text.splitlines()]
    for words in lines:
        if len(words) == 2 and not words[0].endswith(":"):
            counters[words[0]] = int(words[1])
    for names, values in pairwise(lines):
        if names and values and names[0] == values[0] and names[0].endswith(":"):
            group = names[0].removesuffix(":")
            counters |= {f"{group}.{name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
    return {name: value for name, value in counters.items() if name not in _GAUGES}
