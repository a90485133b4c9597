"""Who is who in an experiment: its client and its Service with the names resolved. Pure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from netlab.errors import UsageError
from netlab.experiments.experiment import Experiment
from netlab.model import Address, Protocol, Role, Topology


@dataclass(frozen=True, slots=True)
class Roles:
    """The namespaces, addresses and ports of one connection.

    client_address is the client's first of the cluster IP's family: what it connects from, unless its routes say more.
    node is the namespace that translates for the client, server_node the one that the server hangs on. netns are
    all of these and those that the steps name, once each: what happens in them tells the story. ports are those
    whose packets tell it: the Service's, those that the steps name, and what Services translate these to.
    """

    client: str
    client_address: Address
    node: str
    server: str
    server_node: str | None
    vip: Address
    port: int
    endpoint: Address
    target_port: int
    payload_bytes: int
    netns: tuple[str, ...]
    ports: frozenset[int]


def assign(topology: Topology, experiment: Experiment) -> Roles:
    """The roles of an experiment: its Service's first TCP port, first cluster IP and first endpoint.

    UsageError where its client, Service or node can't run it in this topology.
    """
    service = topology.service(experiment.service)
    ports = [port for port in service.ports if port.protocol is Protocol.TCP]
    if not ports or not service.endpoints or not service.cluster_ips:
        raise UsageError(
            f"service {service.name!r} can't be the experiment's", "it needs a cluster IP, a TCP port and an endpoint"
        )
    endpoint, vip = service.endpoints[0], service.cluster_ips[0]
    if len(service.endpoints) > 1:
        raise UsageError(
            f"service {service.name!r} has {len(service.endpoints)} endpoints",
            "the experiment must know which one answers: name a service with one endpoint",
        )
    addresses = [address for address in endpoint.addresses if address.version == vip.version]
    if not addresses:
        raise UsageError(f"the endpoint {endpoint.netns!r} has no IPv{vip.version} address")
    node = topology.netns(experiment.client).node
    if node is None:
        nodes = topology.kube_proxy.nodes
        if not nodes:
            raise UsageError("no node translates for the client", "name the nodes in the topology's kube_proxy")
        node = nodes[0]
    if experiment.client == node or topology.netns(experiment.client).role is Role.NODE:
        raise UsageError(f"the experiment's client {experiment.client!r} is a node", "let a pod or a host connect")
    own = [address.ip for end in topology.interfaces() if end.netns == experiment.client for address in end.addresses]
    own += [address.ip for address in topology.netns(experiment.client).loopback]
    client_addresses = [address for address in own if address.version == vip.version]
    if not client_addresses:
        raise UsageError(f"the client {experiment.client!r} has no IPv{vip.version} address")
    server_node = topology.netns(endpoint.netns).node
    roles = (experiment.client, node, server_node, endpoint.netns, *experiment.namespaces())
    return Roles(
        client=experiment.client,
        client_address=client_addresses[0],
        node=node,
        server=endpoint.netns,
        server_node=server_node,
        vip=vip,
        port=ports[0].port,
        endpoint=addresses[0],
        target_port=ports[0].target_port,
        payload_bytes=experiment.payload_bytes,
        netns=tuple(dict.fromkeys(name for name in roles if name is not None)),
        ports=_translated(topology, experiment.ports() | {ports[0].port, ports[0].target_port}),
    )


def _translated(topology: Topology, ports: frozenset[int]) -> frozenset[int]:
    services = (port for service in topology.services for port in service.ports)
    return ports | {port.target_port for port in services if port.port in ports}


def address_of(topology: Topology, host: str, version: int) -> Address | None:
    """The address of that IP version that a service's or a namespace's name stands for, or the address itself."""
    with suppress(ValueError):
        return ip_address(host)
    found = [address for service in topology.services if service.name == host for address in service.cluster_ips]
    found += [address.ip for end in topology.interfaces() if end.netns == host for address in end.addresses]
    return next((address for address in found if address.version == version), None)
