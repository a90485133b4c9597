"""The obvious routes of a lab, derived from who shares a bridge or link with whom.

Pods and hosts get a default route to their node; nodes get a route to everything that other nodes are connected
to, over the fewest nodes, and to the Services' addresses. Nothing here overrides a route that the topology gives
for the same destination.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple, TypeAlias

from netlab.model import Address, Interface, Netns, Network, Role, Route
from netlab.topology.addresses import Networks

Segment: TypeAlias = Sequence[Interface]
"""The interfaces on one bridge (or several joined ones) or link, those with addresses."""

DEFAULTS: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


Spend = Callable[[int], None]
"""Is told how many routes are made, or looked for; it raises where they become too many."""


def derive(namespaces: Sequence[Netns], segments: Sequence[Segment], spend: Spend) -> dict[str, list[Route]]:
    """Derived routes by namespace, without those whose destination the namespace has a route for already."""
    lab = _Lab(namespaces, segments)
    routes: dict[str, list[Route]] = {}
    for netns in namespaces:
        given = {route.dst for route in netns.routes}
        derived = lab.to_others(netns.name, spend) if netns.role is Role.NODE else lab.to_node(netns)
        fresh = []
        for route in derived:
            spend(1)
            if route.dst not in given:
                given.add(route.dst)
                fresh.append(route)
        if fresh:
            routes[netns.name] = fresh
    return routes


def to_virtual_ips(
    nodes: Sequence[Netns], segments: Sequence[Segment], virtual_ips: Sequence[Address], spend: Spend
) -> dict[str, list[Route]]:
    """Routes by node to the Services' addresses that no other route of it covers, over its first interface.

    A packet to such an address is translated or rejected by the node's rules, but some of them see it only after it was
    routed; in a cluster the node's default route does that. Nothing is ever sent there.
    """
    routes: dict[str, list[Route]] = {}
    first: dict[tuple[str, int], Interface] = {}
    for interface in (interface for segment in segments for interface in segment):
        for found in interface.addresses:
            first.setdefault((interface.netns, found.version), interface)
    for netns in nodes:
        spend(len(virtual_ips))
        known = Networks(route.dst for route in netns.routes)
        for address in virtual_ips:
            through = first.get((netns.name, address.version))
            if through is not None and address not in known:
                routes.setdefault(netns.name, []).append(Route(ip_network(address), dev=through.ifname))
    return routes


class Detour(NamedTuple):
    """How a pod reaches the others on its bridge through its node, at the IP level.

    routes go before all others of the pod: its gateways are reachable through them. node_ifname is the node's own
    interface there.
    """

    netns: str
    ifname: str
    node: str
    node_ifname: str
    routes: tuple[Route, ...]


def through_nodes(namespaces: Sequence[Netns], segments: Sequence[Segment], nodes: Collection[str]) -> list[Detour]:
    """Detours for the pods that share a bridge with others and whose node is one of `nodes`, which translate.

    A node that rewrote a pod's packet must see the answer. Between two pods on one bridge the answer would stay on the
    bridge, which hands it to the node's rules only where br_netfilter is loaded and says so: a matter of the host. As
    with the "ptp" plugin of CNI, a pod's only neighbour is therefore its node. A pod with routes of its own through
    other neighbours keeps the bridge.
    """
    lab = _Lab(namespaces, segments)
    found = []
    for netns in namespaces:
        if netns.role is not Role.POD or netns.node not in nodes:
            continue
        for index, interface in lab.attached[netns.name]:
            others = any(on.netns not in (netns.name, netns.node) for on in segments[index])
            own = next((on for on in lab.nodes_on[index] if on.netns == netns.node), None)
            if others and own is not None and (routes := _detour(netns, interface, own)):
                found.append(Detour(netns.name, interface.ifname, own.netns, own.ifname, routes))
    return found


def _detour(netns: Netns, interface: Interface, node: Interface) -> tuple[Route, ...]:
    """The routes of a Detour; none where an address family of the interface lacks the node, or is routed elsewhere."""
    routes: list[Route] = []
    for version in dict.fromkeys(address.version for address in interface.addresses):
        via = _reachable(interface, node, version)
        networks = dict.fromkeys(a.network for a in interface.addresses if a.version == version)
        elsewhere = [route.via for route in netns.routes if route.via is not None and route.via.version == version]
        if via is None or any(hop != via and any(hop in network for network in networks) for hop in elsewhere):
            return ()
        routes.append(Route(ip_network(via), dev=interface.ifname))
        routes += [Route(network, via) for network in networks]
    return tuple(route for route in routes if not any(route.dst == own.dst for own in netns.routes))


class _Lab:
    """Who is on which segment, looked up in both directions."""

    def __init__(self, namespaces: Sequence[Netns], segments: Sequence[Segment]) -> None:
        self.netns = {netns.name: netns for netns in namespaces}
        self.nodes = {netns.name for netns in namespaces if netns.role is Role.NODE}
        self.attached: dict[str, list[tuple[int, Interface]]] = {netns.name: [] for netns in namespaces}
        self.nodes_on: list[list[Interface]] = []
        self._subnets: dict[tuple[str, int], dict[Network, None]] = {}
        for index, segment in enumerate(segments):
            for interface in segment:
                self.attached[interface.netns].append((index, interface))
            self.nodes_on.append([interface for interface in segment if interface.netns in self.nodes])
        self.with_loopback = [
            [on for on in segment if on.netns not in self.nodes and self.netns[on.netns].loopback]
            for segment in segments
        ]

    def to_node(self, netns: Netns) -> Iterator[Route]:
        """Default routes of a pod to its node, of a host to the only node it has as neighbour."""
        node = netns.node
        if netns.role is Role.HOST:
            neighbours = {on.netns for index, _ in self.attached[netns.name] for on in self.nodes_on[index]}
            node = neighbours.pop() if len(neighbours) == 1 else None
        if node is None:
            return
        for version in (4, 6):
            via = self._gateway(netns.name, node, version)
            if via is not None:
                yield Route(DEFAULTS[version], via)

    def to_others(self, node: str, spend: Spend) -> Iterator[Route]:
        """Routes of one node: its own neighbours' loopbacks, then what each other node reaches, nearest first."""
        for version in (4, 6):
            own = self._connected(node, version)
            yield from (route for route in self._neighbours(node, version, None) if route.dst not in own)
            for other, via in self._first_hops(node, version):
                spend(1)
                far = [*self._connected(other, version), *self._loopbacks(other, version)]
                far += [route.dst for route in self._neighbours(other, version, node)]
                yield from (Route(dst, via) for dst in far if dst not in own)

    def _gateway(self, netns: str, other: str, version: int) -> Address | None:
        """An address of other that netns can send to directly."""
        for index, interface in self.attached[netns]:
            for on in self.nodes_on[index]:
                if on.netns == other and (via := _reachable(interface, on, version)) is not None:
                    return via
        return None

    def _connected(self, netns: str, version: int) -> dict[Network, None]:
        """Subnets that a namespace has an address in."""
        known = self._subnets.get((netns, version))
        if known is not None:
            return known
        found: dict[Network, None] = {
            address.network: None
            for _, interface in self.attached[netns]
            for address in interface.addresses
            if address.version == version and address.network.prefixlen < address.max_prefixlen
        }
        self._subnets[netns, version] = found
        return found

    def _loopbacks(self, netns: str, version: int) -> list[Network]:
        return [address.network for address in self.netns[netns].loopback if address.version == version]

    def _neighbours(self, node: str, version: int, asking: str | None) -> Iterator[Route]:
        """Routes of a node to the loopback addresses of the pods and hosts beside it."""
        for index, own in self.attached[node]:
            for interface in self.with_loopback[index]:
                via = _reachable(own, interface, version) if interface.netns != asking else None
                if via is not None:
                    yield from (Route(dst, via) for dst in self._loopbacks(interface.netns, version))

    def _first_hops(self, node: str, version: int) -> Iterator[tuple[str, Address]]:
        """Every node that can be reached over nodes, nearest first, with the address of the first one on the way."""
        seen = {node}
        unseen: dict[int, list[Interface]] = {}
        queue: deque[tuple[str, Address | None]] = deque([(node, None)])
        while queue:
            here, first = queue.popleft()
            for index, own in self.attached[here]:
                unseen[index] = [on for on in unseen.get(index, self.nodes_on[index]) if on.netns not in seen]
                for interface in unseen[index]:
                    via = _reachable(own, interface, version)
                    if via is None or interface.netns in seen:
                        continue
                    seen.add(interface.netns)
                    hop = via if first is None else first
                    queue.append((interface.netns, hop))
                    yield interface.netns, hop


def _reachable(own: Interface, far: Interface, version: int) -> Address | None:
    """The first address of far that lies in a subnet of own."""
    networks = [address.network for address in own.addresses if address.version == version]
    for address in far.addresses:
        if address.version == version and any(address.ip in network for network in networks):
            return address.ip
    return None
