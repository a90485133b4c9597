"""Services as one node sees them: each port in each family, with its addresses there and the endpoints to choose from.

What is the same in both modes: kube-proxy's `CategorizeEndpoints` (pkg/proxy/topology.go) and the questions of its
ServicePort (pkg/proxy/serviceport.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import NamedTuple

from netlab.kubeproxy.names import service_port_name, socket_address
from netlab.kubeproxy.rules import Family
from netlab.model import Address, KubeProxy, Network, Service, ServicePort, Topology, TrafficPolicy

VERSIONS: dict[Family, int] = {"ip": 4, "ip6": 6}
"""The IP version of each family."""

MASQUERADE_BIT = 0x4000
"""The bit of the packet's mark that asks for masquerading: kube-proxy's `--iptables-masquerade-bit` and
`--nftables-masquerade-bit` are 14."""


class Portal(NamedTuple):
    """One port of a Service in one family. endpoints are all there are, local those on the node itself."""

    service: Service
    port: ServicePort
    cluster_ip: Address
    external_ips: tuple[Address, ...]
    load_balancer_ips: tuple[Address, ...]
    source_ranges: tuple[Network, ...]
    endpoints: tuple[Address, ...]
    local: tuple[Address, ...]

    @property
    def name(self) -> str:
        """What kube-proxy calls it: "default/web:http", or "default/web" for an unnamed port."""
        return service_port_name(self.service, self.port)

    @property
    def external(self) -> bool:
        """Whether there are other ways to it than the cluster IP."""
        return self.port.node_port is not None or bool(self.external_ips or self.load_balancer_ips)

    @property
    def internal_local(self) -> bool:
        """Whether what is sent to the cluster IP must stay on the node."""
        return self.service.internal_traffic_policy is TrafficPolicy.LOCAL

    @property
    def external_local(self) -> bool:
        """Whether what comes by the other ways must stay on the node."""
        return self.service.external_traffic_policy is TrafficPolicy.LOCAL

    @property
    def for_internal(self) -> tuple[Address, ...]:
        """The endpoints for what is sent to the cluster IP."""
        return self.local if self.internal_local else self.endpoints

    @property
    def for_external(self) -> tuple[Address, ...]:
        """The endpoints for what comes by the other ways from outside."""
        return self.local if self.external_local else self.endpoints

    @property
    def by_cluster_policy(self) -> tuple[Address, ...]:
        """The endpoints to choose from where any will do; a node's own and its pods' traffic is never held back."""
        return () if self.internal_local and not self.external else self.endpoints

    @property
    def by_local_policy(self) -> tuple[Address, ...]:
        """The endpoints to choose from where only the node's own will do."""
        return self.local if self.internal_local or (self.external_local and self.external) else ()

    @property
    def reachable(self) -> tuple[Address, ...]:
        """The endpoints that some traffic of this node may be sent to."""
        return self.by_cluster_policy or self.by_local_policy


class NodeView(NamedTuple):
    """All that the rules of a node come from: where two topologies have it in common, the rules are the same.

    addresses are the node's primary ones, by IP version.
    """

    node: str
    services: tuple[Service, ...]
    kube_proxy: KubeProxy
    addresses: tuple[tuple[int, Address], ...]
    drops_invalid: bool

    def address(self, version: int) -> Address | None:
        """The node's primary address of that version."""
        return dict(self.addresses).get(version)


def view(topology: Topology, node: str) -> NodeView:
    """What a node of the topology sees of it."""
    primary = topology.primary_addresses()
    addresses = tuple((v, primary[node, v]) for v in VERSIONS.values() if (node, v) in primary)
    return NodeView(node, topology.services, topology.kube_proxy, addresses, topology.drops_invalid(node))


def portals(services: Iterable[Service], node: str, version: int) -> Iterator[Portal]:
    """Every port of every Service with a cluster IP of that family, in the Services' order."""
    for service in services:
        for cluster_ip in service.cluster_ips:
            if cluster_ip.version == version:
                for port in service.ports:
                    endpoints = _endpoints(service, port, version)
                    yield Portal(
                        service,
                        port,
                        cluster_ip,
                        tuple(ip for ip in service.external_ips if ip.version == version),
                        tuple(ip for ip in service.load_balancer_ips if ip.version == version),
                        tuple(cidr for cidr in service.load_balancer_source_ranges if cidr.version == version),
                        tuple(endpoints),
                        tuple(address for address, on in endpoints.items() if on == node),
                    )


def _endpoints(service: Service, port: ServicePort, version: int) -> dict[Address, str | None]:
    """Each endpoint's address and node, in kube-proxy's order: as texts, with their ports."""
    found = {a: e.node for e in service.endpoints for a in e.addresses if a.version == version}
    return dict(sorted(found.items(), key=lambda item: socket_address(item[0], port.target_port)))


def cluster_networks(kube_proxy: KubeProxy, version: int) -> tuple[Network, ...]:
    """The pods' networks of that family, adjacent and nested ones as one."""
    return collapsed(kube_proxy.cluster_cidrs, version)


def collapsed(networks: Iterable[Network], version: int) -> tuple[Network, ...]:
    """The networks of that family, adjacent and nested ones as one."""
    if version == 4:
        return tuple(collapse_addresses(one for one in networks if isinstance(one, IPv4Network)))
    return tuple(collapse_addresses(one for one in networks if isinstance(one, IPv6Network)))
