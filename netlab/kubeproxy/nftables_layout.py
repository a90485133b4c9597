"""kube-proxy's nftables mode: the table kube-proxy of a node for the Services of a lab, with every chain, set and map.

The decisions, names, comments, words and the order of rules are those of kube-proxy v1.33.6 (pkg/proxy/nftables/
proxier.go of Kubernetes' release-1.33; before pull request 133969, which came with v1.33.6, the filter chains lay at
priority -110, and short-circuited traffic was dropped). Later releases match less in a service's first rule (pull
request 131492), and mark without a chain for it (pull request 135800).

Two things are the labs' own. kube-proxy has no rule against INVALID packets in this mode; where the topology asks for
it, it is the first of filter-forward, so that the fixes can be compared in both modes. And where the pods have several
networks of a family, all of them are the cluster's, while kube-proxy knows one. What the cluster's ServiceCIDR objects
are to kube-proxy, the pools are here that the topology gives cluster IPs from.

Unlike in the iptables mode, node ports are open at the node's primary address only (`--nodeport-addresses` is "primary"
here), a cluster IP's other ports are refused, and so is what the node itself sends to the load-balancer IPs of a
Service without endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.kubeproxy.names import socket_address
from netlab.kubeproxy.nftables_names import endpoint_base, service_port_base
from netlab.kubeproxy.objects import KUBE_PROXY, Chain, Element, Rule, Set, Table
from netlab.kubeproxy.portals import MASQUERADE_BIT, VERSIONS, NodeView, Portal, cluster_networks, portals
from netlab.kubeproxy.rules import Family, Hook
from netlab.model import Address, Network

_TO_SERVICES = Rule("jump services")
_TO_FIREWALL = Rule("ct state new jump firewall-check")
_TO_SERVICE_ENDPOINTS = Rule("ct state new jump service-endpoints-check")
_TO_NODE_PORT_ENDPOINTS = Rule("ct state new jump nodeport-endpoints-check")
_TO_CLUSTER_IPS = Rule("ct state new jump cluster-ips-check")

_BASE_CHAINS = (
    # Source ranges are those of what the client sent: before the translation.
    Chain("filter-prerouting-pre-dnat", (_TO_FIREWALL,), Hook("filter", "prerouting", -110)),
    Chain("filter-output-pre-dnat", (_TO_FIREWALL,), Hook("filter", "output", -110)),
    Chain("filter-input", (_TO_NODE_PORT_ENDPOINTS, _TO_SERVICE_ENDPOINTS), Hook("filter", "input", 0)),
    Chain("filter-forward", (_TO_SERVICE_ENDPOINTS, _TO_CLUSTER_IPS), Hook("filter", "forward", 0)),
    Chain("filter-output", (_TO_SERVICE_ENDPOINTS, _TO_CLUSTER_IPS), Hook("filter", "output", 0)),
    Chain("nat-prerouting", (_TO_SERVICES,), Hook("nat", "prerouting", -100)),
    Chain("nat-output", (_TO_SERVICES,), Hook("nat", "output", -100)),
    Chain("nat-postrouting", (Rule("jump masquerading"),), Hook("nat", "postrouting", 100)),
)
_DROP_INVALID = Rule("ct state invalid drop")
_MARK = "jump mark-for-masquerade"
_BIT = f"0x{MASQUERADE_BIT:08x}"


TABLES = (KUBE_PROXY,)
"""The name of each family's table."""


def tables(view: NodeView) -> tuple[Table, ...]:
    """The node's table of each family that a Service has a cluster IP of; ip comes before ip6."""
    made: list[Table] = []
    for family, version in VERSIONS.items():
        seen = tuple(portals(view.services, view.node, version))
        if seen:
            cluster = cluster_networks(view.kube_proxy, version)
            services = tuple(cidr for cidr in view.kube_proxy.service_cidrs if cidr.version == version)
            layout = _Layout(family, cluster, services, view.address(version))
            made.append(layout.table(seen, view.drops_invalid))
    return tuple(made)


class _Layout(NamedTuple):
    """One family on one node. cluster are the pods' networks, services those of the cluster IPs, node_ip is the node's
    primary address."""

    family: Family
    cluster: tuple[Network, ...]
    services: tuple[Network, ...]
    node_ip: Address | None

    def table(self, seen: tuple[Portal, ...], drop_invalid: bool) -> Table:
        """The whole table for these portals."""
        base = (
            chain._replace(rules=(_DROP_INVALID, *chain.rules))
            if drop_invalid and chain.name == "filter-forward"
            else chain
            for chain in _BASE_CHAINS
        )
        return Table(
            self.family,
            KUBE_PROXY,
            "rules for kube-proxy",
            (*self._stock_sets(seen), *(made for portal in seen for made in self._affinity_sets(portal))),
            (*base, *self._stock_chains(), *(made for portal in seen for made in self._chains(portal))),
        )

    # --- what there is one of -----------------------------------------------------------------------------------------

    def _stock_sets(self, seen: tuple[Portal, ...]) -> Iterator[Set]:
        address = f"ipv{VERSIONS[self.family]}_addr"
        by_socket, by_port = f"{address} . inet_proto . inet_service : verdict", "inet_proto . inet_service : verdict"
        cluster_ips = dict.fromkeys(portal.cluster_ip for portal in seen)
        node_ips = () if self.node_ip is None else (Element(str(self.node_ip)),)
        yield Set("cluster-ips", address, "Active ClusterIPs", tuple(Element(str(ip)) for ip in cluster_ips))
        yield Set("nodeport-ips", address, "IPs that accept NodePort traffic", node_ips)
        yield Set(
            "no-endpoint-services",
            by_socket,
            "vmap to drop or reject packets to services with no endpoints",
            tuple(element for portal in seen for element in _no_endpoint_services(portal)),
        )
        yield Set(
            "no-endpoint-nodeports",
            by_port,
            "vmap to drop or reject packets to service nodeports with no endpoints",
            tuple(element for portal in seen for element in _no_endpoint_node_ports(portal)),
        )
        yield Set(
            "firewall-ips",
            by_socket,
            "destinations that are subject to LoadBalancerSourceRanges",
            tuple(element for portal in seen for element in _firewall_ips(portal)),
        )
        yield Set(
            "service-ips",
            by_socket,
            "ClusterIP, ExternalIP and LoadBalancer IP traffic",
            tuple(element for portal in seen for element in _service_ips(portal)),
        )
        yield Set(
            "service-nodeports",
            by_port,
            "NodePort traffic",
            tuple(element for portal in seen for element in _service_node_ports(portal)),
        )

    def _stock_chains(self) -> Iterator[Chain]:
        ip = self.family
        socket = f"{ip} daddr . meta l4proto . th dport"
        node_port = f"{ip} daddr @nodeport-ips meta l4proto . th dport"
        refused = Rule(f"{ip} daddr @cluster-ips reject", "Reject traffic to invalid ports of ClusterIPs")
        yield Chain("nodeport-endpoints-check", (Rule(f"{node_port} vmap @no-endpoint-nodeports"),))
        yield Chain("service-endpoints-check", (Rule(f"{socket} vmap @no-endpoint-services"),))
        yield Chain("firewall-check", (Rule(f"{socket} vmap @firewall-ips"),))
        yield Chain("services", (Rule(f"{socket} vmap @service-ips"), Rule(f"{node_port} vmap @service-nodeports")))
        yield Chain(
            "masquerading",
            (
                Rule(f"mark and {_BIT} == 0 return"),
                # Cleared, so that the packet isn't masqueraded again when it comes by a second time.
                Rule(f"mark set mark xor {_BIT}"),
                Rule("masquerade fully-random"),
            ),
        )
        unused = f"{ip} daddr {{ {', '.join(map(str, self.services))} }} drop"
        dropped = Rule(unused, "Drop traffic to unallocated ClusterIPs")
        yield Chain("cluster-ips-check", (refused, dropped) if self.services else (refused,))
        yield Chain("mark-for-masquerade", (Rule(f"mark set mark or {_BIT}"),))
        yield Chain(
            "reject-chain",
            (Rule("reject"),),
            comment="helper for @no-endpoint-services / @no-endpoint-nodeports",
        )

    # --- what each portal has -----------------------------------------------------------------------------------------

    def _affinity_sets(self, portal: Portal) -> Iterator[Set]:
        timeout_s = portal.service.session_affinity_s
        if timeout_s is not None:
            for endpoint in portal.reachable:
                yield Set(_endpoint("affinity", portal, endpoint), f"ipv{endpoint.version}_addr", timeout_s=timeout_s)

    def _chains(self, portal: Portal) -> Iterator[Chain]:
        for endpoint in portal.reachable:
            yield Chain(_endpoint("endpoint", portal, endpoint), tuple(self._translate(portal, endpoint)))
        if portal.by_cluster_policy:
            marks = () if portal.internal_local else self._mark_off_cluster(portal)
            balance = self._balance(portal, portal.by_cluster_policy)
            yield Chain(_service("service", portal), (*marks, *balance))
        if portal.by_local_policy:
            marks = self._mark_off_cluster(portal) if portal.internal_local else ()
            balance = self._balance(portal, portal.by_local_policy)
            yield Chain(_service("local", portal), (*marks, *balance))
        if portal.endpoints and portal.external:
            yield Chain(_service("external", portal), tuple(self._from_outside(portal)))
        if _is_walled(portal):
            yield Chain(_service("firewall", portal), (self._wall(portal),))

    def _mark_off_cluster(self, portal: Portal) -> tuple[Rule, ...]:
        # Whatever node such a client's packet was routed to, the answer must come back to it.
        if not self.cluster:
            return ()
        ip, port = self.family, portal.port
        destination = f"{ip} daddr {portal.cluster_ip} {port.protocol.lower()} dport {port.port}"
        return (Rule(f"{destination} {ip} saddr != {_any_of(self.cluster)} {_MARK}"),)

    def _balance(self, portal: Portal, endpoints: tuple[Address, ...]) -> Iterator[Rule]:
        if portal.service.session_affinity_s is not None:
            for endpoint in endpoints:
                remembered = f"{self.family} saddr @{_endpoint('affinity', portal, endpoint)}"
                yield Rule(f"{remembered} goto {_endpoint('endpoint', portal, endpoint)}")
        choices = ", ".join(f"{i} : goto {_endpoint('endpoint', portal, e)}" for i, e in enumerate(endpoints))
        yield Rule(f"numgen random mod {len(endpoints)} vmap {{ {choices} }}")

    def _translate(self, portal: Portal, endpoint: Address) -> Iterator[Rule]:
        # A pod that reaches itself through the Service must see another address than its own, or the reply never
        # leaves it.
        yield Rule(f"{self.family} saddr {endpoint} {_MARK}")
        if portal.service.session_affinity_s is not None:
            yield Rule(f"update @{_endpoint('affinity', portal, endpoint)} {{ {self.family} saddr }}")
        socket = socket_address(endpoint, portal.port.target_port)
        yield Rule(f"meta l4proto {portal.port.protocol.lower()} dnat to {socket}")

    def _from_outside(self, portal: Portal) -> Iterator[Rule]:
        any_endpoint = f"goto {_service('service', portal)}"
        if not portal.external_local:
            yield Rule(_MARK)  # the endpoint may be on another node, and its answer must come back to this one
            yield Rule(any_endpoint)
            return
        if self.cluster:
            yield Rule(f"{self.family} saddr {_any_of(self.cluster)} {any_endpoint}", "short-circuit pod traffic")
        yield Rule(f"fib saddr type local {_MARK}", "masquerade local traffic")
        yield Rule(f"fib saddr type local {any_endpoint}", "short-circuit local traffic")
        if portal.local:
            yield Rule(f"goto {_service('local', portal)}")

    def _wall(self, portal: Portal) -> Rule:
        # A node in the ranges may reach the load balancer from the very address, where that is one of the node's own.
        own = self.node_ip is not None and any(self.node_ip in source for source in portal.source_ranges)
        allowed = (*portal.source_ranges, *(portal.load_balancer_ips if own else ()))
        return Rule(f"{self.family} saddr != {{ {', '.join(map(str, allowed))} }} drop")


def _service(prefix: str, portal: Portal) -> str:
    return f"{prefix}-{service_port_base(portal.service, portal.port)}"


def _endpoint(prefix: str, portal: Portal, endpoint: Address) -> str:
    return f"{prefix}-{endpoint_base(portal.service, portal.port, endpoint)}"


def _any_of(networks: Iterable[Network]) -> str:
    texts = [str(network) for network in networks]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"


def _is_walled(portal: Portal) -> bool:
    return bool(portal.load_balancer_ips and portal.source_ranges)


# --- elements: which way a destination goes ---------------------------------------------------------------------------


def _socket(portal: Portal, address: Address) -> str:
    return f"{address} . {portal.port.protocol.lower()} . {portal.port.port}"


def _node_port(portal: Portal) -> str:
    return f"{portal.port.protocol.lower()} . {portal.port.node_port}"


def _service_ips(portal: Portal) -> Iterator[Element]:
    if portal.for_internal:
        chain = _service("local" if portal.internal_local else "service", portal)
        yield Element(_socket(portal, portal.cluster_ip), f"goto {chain}")
    if portal.endpoints:
        for address in (*portal.external_ips, *portal.load_balancer_ips):
            yield Element(_socket(portal, address), f"goto {_service('external', portal)}")


def _service_node_ports(portal: Portal) -> Iterator[Element]:
    if portal.port.node_port is not None and portal.endpoints:
        yield Element(_node_port(portal), f"goto {_service('external', portal)}")


def _firewall_ips(portal: Portal) -> Iterator[Element]:
    if _is_walled(portal):
        for address in portal.load_balancer_ips:
            yield Element(_socket(portal, address), f"goto {_service('firewall', portal)}")


def _no_endpoint_services(portal: Portal) -> Iterator[Element]:
    if not portal.for_internal:
        yield Element(_socket(portal, portal.cluster_ip), _refusal(portal), portal.name)
    if not portal.for_external:
        for address in (*portal.external_ips, *portal.load_balancer_ips):
            yield Element(_socket(portal, address), _refusal(portal), portal.name)


def _no_endpoint_node_ports(portal: Portal) -> Iterator[Element]:
    if portal.port.node_port is not None and not portal.for_external:
        yield Element(_node_port(portal), _refusal(portal), portal.name)


def _refusal(portal: Portal) -> str:
    # With endpoints on other nodes only, it is the sender's load balancer that chose the wrong node.
    return "drop" if portal.endpoints else "goto reject-chain"
