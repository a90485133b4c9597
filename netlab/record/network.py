"""What decides where a namespace's packets go, as it was at one moment: interfaces, routes, neighbours, sockets that
listen, sysctls. Pure: `observe/network.py` reads it, once as an observation begins and once as it ends.

Names are rtnetlink's. Numbers without a name of their own in the kernel's words stay numbers, as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from netlab.model import Address
from netlab.record.domains import U8, U32, Count, Port, PrefixLength, TimeNs, Word


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """An interface as `ip address` shows it. operstate is the kernel's ("UP", "LOWERLAYERDOWN"), kind IFLA_INFO_KIND
    ("veth", "bridge"), empty for lo; master the bridge it is a port of, empty for none; addresses are with their
    prefix lengths. up is whether it was set up."""

    ifname: Word
    up: bool
    operstate: Word
    mtu: U32
    lladdr: Word
    kind: Word = ""
    master: Word = ""
    addresses: tuple[tuple[Address, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a route leads: by way of a gateway, or to what is on the interface's link (None)."""

    ifname: Word
    gateway: Address | None = None
    weight: U32 = 1


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route. kind is rtm_type ("unicast", "blackhole", "unreachable", "prohibit", "throw"), table a number.

    next_hops are several for a multipath route, none for one that leads nowhere. metric is RTA_PRIORITY, mtu the
    route's own, None without. learned: no route that anyone set, but what the kernel learned of one destination, as the
    MTU of the path to it (an exception, `ip route show cache`); expires_ms is then what is left of it, None for ever.
    """

    destination: Address
    prefix_length: PrefixLength
    kind: Word
    table: U32
    next_hops: tuple[NextHop, ...] = ()
    metric: U32 = 0
    source: Address | None = None
    mtu: U32 | None = None
    learned: bool = False
    expires_ms: int | None = None

    def inconsistency(self) -> str:
        """Of a route read from a file: a prefix that is longer than an address."""
        longest = self.destination.max_prefixlen
        return "" if self.prefix_length <= longest else f"a prefix of {self.prefix_length} of {longest} bits"

    def covers(self, address: Address) -> bool:
        """Whether the address is one of its destinations."""
        return address.version == self.destination.version and address in ip_network(
            (self.destination, self.prefix_length), strict=False
        )


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A rule of `ip rule`. action is its kind ("table", "goto", "nop", "blackhole", "unreachable", "prohibit").

    selector has what a packet must match beside its family, as `ip rule` says it: "from 10.0.0.0/24 fwmark 0x1"; empty
    for a rule that every packet matches.
    """

    priority: U32
    version: int
    action: Word
    table: U32
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the table of neighbours. state is NUD_* without the prefix ("REACHABLE", "FAILED"); lladdr is empty
    where none is known."""

    ifname: Word
    address: Address
    lladdr: Word
    state: Word


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A TCP socket that listens, or a UDP socket that is bound and not connected.

    queued are the connections that wait to be accepted, backlog how many may; of UDP queued are bytes to be read, and
    backlog is 0. only_ipv6: what is bound to :: takes nothing of IPv4.
    """

    proto: U8
    address: Address
    port: Port
    queued: Count
    backlog: Count = 0
    only_ipv6: bool = False

    def takes(self, proto: int, address: Address, port: int) -> bool:
        """Whether what comes to the address and port is for this socket, where no other is closer."""
        if (self.proto, self.port) != (proto, port):
            return False
        if not self.address.is_unspecified:
            return self.address == address
        return self.address.version == address.version or (self.address.version == 6 and not self.only_ipv6)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """A namespace at one moment.

    routes are those of all tables but local, which follows from the addresses; neighbours those that ARP or neighbour
    discovery asked for, or that were set. sysctls are those that decide what
    becomes of a packet or of a connection, by name ("net.ipv4.ip_forward"), where the kernel has them. ruleset is what
    `nft -s -a list ruleset` prints; None where it was not read.
    """

    time_ns: TimeNs
    netns: Word
    interfaces: tuple[InterfaceState, ...]
    routes: tuple[RouteState, ...]
    rules: tuple[RoutingRule, ...]
    neighbours: tuple[Neighbour, ...]
    listening: tuple[ListeningSocket, ...]
    sysctls: tuple[tuple[str, str], ...]
    ruleset: str | None = None

    def sysctl(self, name: str) -> str | None:
        """A sysctl's value; None where the kernel hasn't it."""
        return next((value for key, value in self.sysctls if key == name), None)

    def is_local(self, address: Address) -> bool:
        """Whether the address is one of the namespace's own."""
        return address.is_loopback or any(
            address == own for interface in self.interfaces for own, _ in interface.addresses
        )

    def route_to(self, address: Address) -> RouteState | None:
        """The route for packets of the namespace's own to that address, as far as no rule picks by more than family.

        None where none matches. A route that isn't unicast is one that refuses, and so is a rule's. Of equal prefix
        lengths, the lowest metric. What the kernel learned (`learned`) counts in `path_mtu` alone.
        """
        rules = [rule for rule in self.rules if rule.version == address.version and not rule.selector]
        for rule in sorted(rules, key=lambda rule: rule.priority):
            if rule.action in ("blackhole", "unreachable", "prohibit"):
                return RouteState(ip_address(bytes(len(address.packed))), 0, rule.action, rule.table)
            found = [
                route
                for route in self.routes
                if route.table == rule.table and not route.learned and route.covers(address)
            ]
            best = min(found, key=lambda route: (-route.prefix_length, route.metric), default=None)
            if best is not None and best.kind != "throw":
                return best
        return None

    def path_mtu(self, address: Address) -> int | None:
        """The MTU that was learned of the path to that address; None where none was."""
        return next((route.mtu for route in self.routes if route.learned and route.covers(address)), None)

    def reverse_path_filter(self, ifname: str) -> int:
        """What rp_filter comes to on an interface: 0 off, 1 strict, 2 loose. Of `all` and its own, the greater counts
        (IN_DEV_RPFILTER(), include/linux/inetdevice.h)."""
        values = (self.sysctl(f"net.ipv4.conf.{name}.rp_filter") for name in ("all", ifname.replace(".", "/")))
        return max(int(value or 0) for value in values)

    def neighbour(self, address: Address) -> Neighbour | None:
        """The entry of a neighbour; None without one."""
        return next((each for each in self.neighbours if each.address == address), None)

    def listens(self, proto: int, address: Address, port: int) -> ListeningSocket | None:
        """The socket that what comes to the address and port is for, if for no connected one; None without one."""
        found = [each for each in self.listening if each.takes(proto, address, port)]
        return min(found, key=lambda each: each.address.is_unspecified, default=None)
