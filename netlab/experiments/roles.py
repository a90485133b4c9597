"""Who is who in an experiment: its client, what it connects to, who answers there. Pure: names are looked up."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain
from typing import NamedTuple, assert_never

from netlab.errors import UsageError
from netlab.experiments.experiment import Experiment, ToService, ToSocket, Way
from netlab.model import Address, Netns, Protocol, Service, ServicePort, Topology

_TRACKS = re.compile(r"\bct\b|\btype nat\b")
"""Rules that make a namespace track connections: what asks conntrack, and what translates with it."""


class RolesError(UsageError):
    """A topology in which an experiment can't be run; key is the document's key that says so."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.key = key


class Server(NamedTuple):
    """A socket that the client may come to: its namespace, the node that this hangs on, if any, address and port."""

    netns: str
    node: str | None
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Roles:
    """The namespaces, addresses and ports of a connection, before it is made.

    client_address is the client's first of the IP version: what it connects from, unless its routes say more. vip and
    port are what it connects to: a Service's, or a socket's own. node is the namespace that translates the connection,
    the first that tracks it where none does, None where none tracks. servers are the sockets that it may come to: a
    Service's endpoints; of one without any, there are none. netns are all of these, those on the way between them, and
    those that the steps name, once each: what happens in them is observed. ports are those whose packets are: the port
    that the client connects to, those that the steps name, and what Services translate these to.
    """

    client: str
    client_address: Address
    node: str | None
    vip: Address
    port: int
    servers: tuple[Server, ...]
    payload_bytes: int
    netns: tuple[str, ...]
    ports: frozenset[int]

    @property
    def first(self) -> Server:
        """The first server; without any, who answers for them: the node, at the Service's own address."""
        return self.servers[0] if self.servers else Server(self.node or self.client, None, self.vip, self.port)

    @property
    def server(self) -> str:
        """The first server's namespace."""
        return self.first.netns

    @property
    def endpoint(self) -> Address:
        """The first server's address."""
        return self.first.address

    @property
    def target_port(self) -> int:
        """The servers' own port."""
        return self.first.port


class _Destination(NamedTuple):
    """Where the client connects: address and port, the namespace that translates or has it, and the servers behind."""

    vip: Address
    port: int
    node: str | None
    servers: tuple[Server, ...]


def assign(topology: Topology, experiment: Experiment) -> Roles:
    """The roles of an experiment in a topology; RolesError where its client or its target can't have them there."""
    client, target = topology.netns(experiment.client), experiment.target
    match target:
        case ToService():
            found = _of_service(topology, client, target)
        case ToSocket():
            found = _of_socket(topology, target)
        case _:
            assert_never(target)
    if found.node in (None, client.name) and client.name in {server.netns for server in found.servers}:
        raise RolesError(
            "client",
            f"the client {client.name!r} is the server too, and its packets pass no interface",
            "let another namespace connect",
        )
    own = [address for address in _addresses(topology, client.name) if address.version == found.vip.version]
    if not own:
        raise RolesError("client", f"the client {client.name!r} has no IPv{found.vip.version} address")
    way = _between(
        topology, [client.name, *([found.node] if found.node else [])], [each.netns for each in found.servers]
    )
    node = found.node
    if node is None:
        node = next((name for name in way if tracks(topology, name)), None)
    names: list[str | None] = [client.name, node]
    names += chain.from_iterable((server.node, server.netns) for server in found.servers)
    names += [*experiment.namespaces(), *way]
    own_ports = {found.port, *(server.port for server in found.servers)}
    return Roles(
        client=client.name,
        client_address=own[0],
        node=node,
        vip=found.vip,
        port=found.port,
        servers=found.servers,
        payload_bytes=experiment.payload_bytes,
        netns=tuple(dict.fromkeys(name for name in names if name is not None)),
        ports=_translated(topology, experiment.ports() | own_ports),
    )


def tracks(topology: Topology, name: str) -> bool:
    """Whether a namespace's rules make it track connections: kube-proxy's do, and its own tables may."""
    own = any(_TRACKS.search(table.body) for table in topology.netns(name).tables)
    return own or (name in topology.kube_proxy.nodes and bool(topology.services))


def address_of(topology: Topology, host: str, version: int) -> Address | None:
    """The address of that IP version that a service's or a namespace's name stands for, or the address itself."""
    with suppress(ValueError):
        return ip_address(host)
    found = [address for service in topology.services if service.name == host for address in service.cluster_ips]
    found += [address.ip for end in topology.interfaces() if end.netns == host for address in end.addresses]
    return next((address for address in found if address.version == version), None)


# --- what a target means


def _of_service(topology: Topology, client: Netns, target: ToService) -> _Destination:
    service = topology.service(target.service)
    port = _service_port(service, target)
    node = _translator(topology, client, target)
    if target.way is Way.NODE_PORT:
        if port.node_port is None:
            raise RolesError("service", f"port {port.port} of service {service.name!r} has no node port")
        addresses = _of_node(topology, client, node)
        vip = _choose(addresses, target, f"the node {node!r}")
        return _Destination(vip, port.node_port, node, _endpoints(service, port, vip.version))
    addresses = {
        Way.CLUSTER_IP: service.cluster_ips,
        Way.EXTERNAL_IP: service.external_ips,
        Way.LOAD_BALANCER_IP: service.load_balancer_ips,
    }[target.way]
    if not addresses:
        raise RolesError("service", f"service {service.name!r} has no {target.way}")
    vip = _choose(addresses, target, f"service {service.name!r}")
    return _Destination(vip, port.port, node, _endpoints(service, port, vip.version))


def _service_port(service: Service, target: ToService) -> ServicePort:
    ports = [port for port in service.ports if port.protocol is Protocol.TCP]
    for port in ports:
        if target.port in (None, port.port):
            return port
    if target.port is None:
        raise RolesError("service", f"service {service.name!r} has no TCP port")
    known = ", ".join(str(port.port) for port in ports)
    raise RolesError("service", f"service {service.name!r} has no TCP port {target.port}", f"it has: {known or 'none'}")


def _translator(topology: Topology, client: Netns, target: ToService) -> str:
    """The node whose rules translate: of a node port the one whose it is, else the nearest to the client."""
    nodes = topology.kube_proxy.nodes
    if not nodes:
        raise RolesError("service", "no node translates for the client", "name the nodes in the topology's kube_proxy")
    if target.node is not None:
        if target.node not in nodes:
            raise RolesError(
                "service", f"{target.node!r} is no node with kube-proxy's rules", f"known: {', '.join(nodes)}"
            )
        return target.node
    if client.node in nodes:
        return str(client.node)
    distances = _distances(_neighbours(topology), [client.name])
    return min(nodes, key=lambda node: distances.get(node, len(distances)))


def _endpoints(service: Service, port: ServicePort, version: int) -> tuple[Server, ...]:
    return tuple(
        Server(endpoint.netns, endpoint.node, address, port.target_port)
        for endpoint in service.endpoints
        for address in endpoint.addresses
        if address.version == version
    )


def _of_node(topology: Topology, client: Netns, node: str) -> Sequence[Address]:
    """The addresses of a node, those in the client's own networks first, then the one that the node goes by."""
    near = [address.network for end in topology.interfaces() if end.netns == client.name for address in end.addresses]
    primary = [address for (name, _), address in topology.primary_addresses().items() if name == node]
    found = [*primary, *_addresses(topology, node)]
    return sorted(dict.fromkeys(found), key=lambda address: not any(address in network for network in near))


def _of_socket(topology: Topology, target: ToSocket) -> _Destination:
    address = _choose(_addresses(topology, target.netns), target, f"the namespace {target.netns!r}")
    if target.served_by is None:
        served = Server(target.netns, topology.netns(target.netns).node, address, target.port)
        return _Destination(address, target.port, None, (served,))
    netns, port = target.served_by
    inner = _choose(_addresses(topology, netns), ToSocket(netns, port, address.version), f"the namespace {netns!r}")
    served = Server(netns, topology.netns(netns).node, inner, port)
    return _Destination(address, target.port, target.netns, (served,))


def _choose(addresses: Sequence[Address], target: ToService | ToSocket, whose: str) -> Address:
    """The address that a target means among those that there are."""
    key = "service" if isinstance(target, ToService) else "to"
    if target.address is not None:
        if target.address not in addresses:
            known = ", ".join(map(str, addresses))
            raise RolesError(key, f"{target.address} is no address of {whose}", f"known: {known}")
        return target.address
    for address in addresses:
        if target.ip_version in (None, address.version):
            return address
    raise RolesError(key, f"{whose} has no IPv{target.ip_version or 4} address")


def _addresses(topology: Topology, name: str) -> list[Address]:
    """A namespace's addresses, its interfaces' first."""
    found = [address.ip for end in topology.interfaces() if end.netns == name for address in end.addresses]
    return found + [address.ip for address in topology.netns(name).loopback]


# --- the way between them


def _neighbours(topology: Topology) -> Mapping[str, Sequence[str]]:
    """Which namespaces are joined by a link; a bridge is in its own namespace."""
    found: dict[str, list[str]] = {netns.name: [] for netns in topology.namespaces}
    for one, other in topology.pairs():
        found[one.netns].append(other.netns)
        found[other.netns].append(one.netns)
    return found


def _distances(neighbours: Mapping[str, Sequence[str]], sources: Sequence[str]) -> dict[str, int]:
    """How many links it is to each namespace from the nearest of some."""
    found = dict.fromkeys(sources, 0)
    waiting = deque(sources)
    while waiting:
        here = waiting.popleft()
        for name in neighbours[here]:
            if name not in found:
                found[name] = found[here] + 1
                waiting.append(name)
    return found


def _between(topology: Topology, sources: Sequence[str], servers: Sequence[str]) -> list[str]:
    """The namespaces on the shortest ways from each of the sources to each of the servers, the nearest first."""
    neighbours = _neighbours(topology)
    found: dict[str, int] = {}
    for source in sources:
        near = _distances(neighbours, [source])
        for end in dict.fromkeys((*sources, *servers)):
            far = _distances(neighbours, [end])
            for name in near.keys() & far.keys():
                if end in near and near[name] + far[name] == near[end]:
                    found[name] = min(near[name], found.get(name, near[name]))
    return sorted(found, key=lambda name: (found[name], name))


def _translated(topology: Topology, ports: frozenset[int]) -> frozenset[int]:
    services = (port for service in topology.services for port in service.ports)
    return ports | {port.target_port for port in services if port.port in ports}
