"""Services of TCP translated without conntrack: the tables of the fix `notrack`, which stand beside kube-proxy's.

Each packet is translated by itself, whatever came before it, so none is ever INVALID. Which endpoint a connection goes
to follows from the client's address and port. The costs are what a connection's state is good for:

- A reply is known by its source alone. Who talks to an endpoint's port directly, past the Service, and whose packets
  cross such a node, has its replies rewritten too, and no connection comes about.
- Nothing is masqueraded: a pod that the hash leads to itself gets no answer.
- ICMP errors are not translated: a client of a cluster IP learns of no smaller MTU on the way.
- Filters see `ct state untracked`, neither new nor established.
- A connection under way may change its endpoint when the fix comes or goes, or the endpoints change: it is reset then.
  And what conntrack knew of it when the fix came is out of date when it goes.

A port is left to conntrack where a reply's source wouldn't tell which way the request came: where there are other ways
to the Service than its cluster IP, or where an endpoint serves several ports of Services at one of its own. And where
the choice of the endpoint is not free: session affinity, an internal traffic policy of Local.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.kubeproxy.portals import VERSIONS, collapsed
from netlab.kubeproxy.rules import Family
from netlab.model import Address, Network, NftTable, Protocol, Service, ServicePort, Topology, TrafficPolicy

TABLE = "netlab_notrack"
"""The tables' name, one table of each family that such a port has an address of."""

SEED = 1
"""The hash's seed: left out, the kernel draws another one whenever the table is loaded, and connections under way would
change their endpoints."""


class _Way(NamedTuple):
    """A port's cluster IP of one family, and the endpoints behind it."""

    service: Service
    port: ServicePort
    cluster_ip: Address
    endpoints: tuple[Address, ...]

    @property
    def chain(self) -> str:
        return f"{self.service.namespace}/{self.service.name}/{self.port.port}"

    @property
    def sockets(self) -> tuple[str, ...]:
        return tuple(f"{address} . {self.port.target_port}" for address in self.endpoints)


def tables(topology: Topology, node: str) -> tuple[NftTable, ...]:
    """What a node that runs kube-proxy gets; empty where no port of a Service can be translated so."""
    made: list[NftTable] = []
    for family, version in VERSIONS.items():
        ways = tuple(_ways(topology, version))
        if ways:
            body = _body(family, ways, _of_others(topology, node, version))
            made.append(NftTable(family, TABLE, "".join(f"{line}\n" for line in body)))
    return tuple(made)


def untracked(topology: Topology, version: int) -> tuple[tuple[Address, int], ...]:
    """The sockets, of Services and of their endpoints, connections to which a node with these tables doesn't track."""
    ways = tuple(_ways(topology, version))
    services = ((way.cluster_ip, way.port.port) for way in ways)
    return (*services, *((address, way.port.target_port) for way in ways for address in way.endpoints))


def untracks(topology: Topology, node: str, address: Address, port: int) -> bool:
    """Whether a node keeps its conntrack from connections to that socket."""
    family = "ip" if address.version == 4 else "ip6"
    tables = ((table.family, table.name) for table in topology.netns(node).tables)
    return (family, TABLE) in tables and (address, port) in untracked(topology, address.version)


def _of_others(topology: Topology, node: str, version: int) -> tuple[Network, ...]:
    """The networks that are other kube-proxy nodes' and not this one's, nested ones as one."""
    own: set[Network] = set()
    others: dict[Network, None] = {}
    for interface in topology.interfaces():
        networks = [address.network for address in interface.addresses if address.version == version]
        if interface.netns == node:
            own.update(networks)
        elif interface.netns in topology.kube_proxy.nodes:
            others.update(dict.fromkeys(networks))
    return collapsed(tuple(network for network in others if network not in own), version)


def _ways(topology: Topology, version: int) -> Iterator[_Way]:
    """The ports that can be translated without state, in the topology's order."""
    served = Counter(
        (address, port.target_port, port.protocol)
        for service in topology.services
        for port in service.ports
        for endpoint in service.endpoints
        for address in endpoint.addresses
    )
    for service in topology.services:
        others = (service.external_ips, service.load_balancer_ips, service.session_affinity_s)
        if any(others) or service.internal_traffic_policy is TrafficPolicy.LOCAL:
            continue
        addresses = tuple(a for endpoint in service.endpoints for a in endpoint.addresses if a.version == version)
        for port in service.ports:
            alone = all(served[address, port.target_port, port.protocol] == 1 for address in addresses)
            if port.protocol is Protocol.TCP and port.node_port is None and addresses and alone:
                yield from (_Way(service, port, ip, addresses) for ip in service.cluster_ips if ip.version == version)


def _body(family: Family, ways: Iterable[_Way], others: Iterable[Network]) -> Iterator[str]:
    address = f"ipv{VERSIONS[family]}_addr"
    services = [f"{way.cluster_ip} . {way.port.port}" for way in ways]
    endpoints = [socket for way in ways for socket in way.sockets]
    requests = [f"{way.cluster_ip} . {way.port.port} : goto to/{way.chain}" for way in ways]
    replies = [f"{socket} : goto from/{way.chain}" for way in ways for socket in way.sockets]
    for name, kind, elements in (
        ("set services", f"{address} . inet_service", services),
        ("set endpoints", f"{address} . inet_service", endpoints),
        ("map requests", f"{address} . inet_service : verdict", requests),
        ("map replies", f"{address} . inet_service : verdict", replies),
    ):
        yield f"{name} {{"
        yield f"\ttype {kind}"
        yield f"\telements = {{ {', '.join(elements)} }}"
        yield "}"
    elsewhere = ", ".join(map(str, others))
    # Both directions, whether another node has translated them or not: half of a connection is INVALID to conntrack.
    yield from _chain(
        "untrack",
        f"{family} daddr . tcp dport @services notrack",
        f"{family} daddr . tcp dport @endpoints notrack",
        f"{family} saddr . tcp sport @services notrack",
        f"{family} saddr . tcp sport @endpoints notrack",
        f"{family} daddr . tcp dport vmap @requests",
    )
    yield from _chain("prerouting", "type filter hook prerouting priority raw", "jump untrack")
    # A route chain: what changes its destination here is routed once more.
    yield from _chain("output", "type route hook output priority raw", "jump untrack")
    # Replies after routing, and each where its request was translated: reverse path filtering would drop a packet that
    # has a cluster IP as its source.
    translate = f"{family} saddr . tcp sport vmap @replies"
    skip = (f"{family} daddr {{ {elsewhere} }} return",) if elsewhere else ()
    yield from _chain("postrouting", "type filter hook postrouting priority raw", *skip, translate)
    yield from _chain("input", "type filter hook input priority raw", translate)
    for way in ways:
        yield from _chain(f"to/{way.chain}", *_to(family, way))
        yield from _chain(
            f"from/{way.chain}", f"counter {family} saddr set {way.cluster_ip} tcp sport set {way.port.port}"
        )


def _to(family: Family, way: _Way) -> Iterator[str]:
    chosen = str(way.endpoints[0])
    if len(way.endpoints) > 1:
        choices = ", ".join(f"{index} : {address}" for index, address in enumerate(way.endpoints))
        hashed = f"jhash {family} saddr . tcp sport mod {len(way.endpoints)} seed {SEED}"
        chosen = f"{hashed} map {{ {choices} }}"
    yield f"counter {family} daddr set {chosen} tcp dport set {way.port.target_port}"


def _chain(name: str, *lines: str) -> Iterator[str]:
    yield f"chain {name} {{"
    yield from (f"\t{line}" for line in lines)
    yield "}"
