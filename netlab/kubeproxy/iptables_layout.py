"""kube-proxy's iptables mode: which chains a node gets for the Services of a lab, and which rules stand in them.

The decisions and their order are those of kube-proxy's pkg/proxy/iptables/proxier.go, for cluster IPs: node ports,
load balancers, external IPs and session affinity are not here (KUBE-NODEPORTS stands, empty). It is the layout of a
current kube-proxy with one difference, the one the labs are about: KUBE-FORWARD drops INVALID packets only where
`KubeProxy.drop_invalid` asks for it, as if the cluster were older than v1.15.

As with kube-proxy, a node needs a route towards the cluster IPs (its default route will do): the packet is rejected
in the forward hook, and translated in the output hook, only after routing has found it a way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import NamedTuple

from netlab.kubeproxy.names import endpoint_chain, service_chain, service_port_name, socket_address
from netlab.kubeproxy.rules import (
    Chain,
    CtState,
    Dnat,
    Family,
    FlipMark,
    Hook,
    Jump,
    Match,
    Rule,
    SetMark,
    Table,
    Verdict,
)
from netlab.model import Address, Network, Service, ServicePort, Topology

MASQUERADE_BIT = 0x4000
"""The bit of the packet's mark that asks for masquerading: kube-proxy's `--iptables-masquerade-bit` is 14."""

_VERSIONS: dict[Family, int] = {"ip": 4, "ip6": 6}


class _Portal(NamedTuple):
    """One service port in one family, with everything about it that a rule says."""

    name: str
    cluster_ip: Address
    port: ServicePort
    endpoints: tuple[Address, ...]

    @property
    def match(self) -> Match:
        return Match(destination=self.cluster_ip, protocol=self.port.protocol, port=self.port.port)

    @property
    def chain(self) -> str:
        return service_chain(self.name, self.port.protocol)

    def endpoint_chain(self, endpoint: Address) -> str:
        return endpoint_chain(self.name, self.port.protocol, endpoint, self.port.target_port)


def tables(topology: Topology, node: str) -> tuple[Table, ...]:
    """The node's tables nat and filter of each family that a Service has a cluster IP of; ip comes before ip6."""
    drop_invalid = topology.drops_invalid(node)
    made: list[Table] = []
    for family, version in _VERSIONS.items():
        portals = tuple(_portals(topology.services, version))
        if portals:
            cluster = _networks(topology.kube_proxy.cluster_cidrs, version)
            made.append(Table(family, "nat", tuple(_nat_chains(portals, cluster))))
            made.append(Table(family, "filter", tuple(_filter_chains(portals, drop_invalid))))
    return tuple(made)


def _portals(services: Iterable[Service], version: int) -> Iterator[_Portal]:
    for service in services:
        addresses = (address for endpoint in service.endpoints for address in endpoint.addresses)
        endpoints = tuple(address for address in addresses if address.version == version)
        for cluster_ip in service.cluster_ips:
            if cluster_ip.version == version:
                for port in service.ports:
                    yield _Portal(service_port_name(service, port), cluster_ip, port, endpoints)


def _networks(cidrs: Iterable[Network], version: int) -> tuple[Network, ...]:
    # Adjacent and nested networks become one; where all the world is in the cluster nothing comes from outside.
    if version == 4:
        networks: tuple[Network, ...] = tuple(collapse_addresses(n for n in cidrs if isinstance(n, IPv4Network)))
    else:
        networks = tuple(collapse_addresses(n for n in cidrs if isinstance(n, IPv6Network)))
    return () if any(network.prefixlen == 0 for network in networks) else networks


def _nat_chains(portals: tuple[_Portal, ...], cluster: tuple[Network, ...]) -> Iterator[Chain]:
    to_services = Rule(Jump("KUBE-SERVICES"), comment="kubernetes service portals")
    to_postrouting = Rule(Jump("KUBE-POSTROUTING"), comment="kubernetes postrouting rules")
    yield Chain("PREROUTING", (to_services,), Hook("nat", "prerouting", -100))
    yield Chain("OUTPUT", (to_services,), Hook("nat", "output", -100))
    yield Chain("POSTROUTING", (to_postrouting,), Hook("nat", "postrouting", 100))

    served = tuple(portal for portal in portals if portal.endpoints)
    to_node_ports = Rule(
        Jump("KUBE-NODEPORTS"),
        Match(destination_is_local=True),
        "kubernetes service nodeports; NOTE: this must be the last rule in this chain",
    )
    yield Chain(
        "KUBE-SERVICES",
        (*(Rule(Jump(portal.chain), portal.match, f"{portal.name} cluster IP") for portal in served), to_node_ports),
    )
    yield Chain("KUBE-NODEPORTS")
    yield Chain("KUBE-MARK-MASQ", (Rule(SetMark(MASQUERADE_BIT)),))
    yield Chain(
        "KUBE-POSTROUTING",
        (
            Rule(Verdict.RETURN, Match(unmarked=MASQUERADE_BIT)),
            # Cleared, so that the packet isn't masqueraded again when it comes by a second time.
            Rule(FlipMark(MASQUERADE_BIT)),
            Rule(Verdict.MASQUERADE, comment="kubernetes service traffic requiring SNAT"),
        ),
    )

    if len(cluster) > 1:
        yield Chain("KUBE-OFF-CLUSTER", tuple(_off_cluster(cluster)))
    for portal in served:
        yield Chain(portal.chain, tuple(_balance(portal, cluster)))
        for endpoint in portal.endpoints:
            yield Chain(portal.endpoint_chain(endpoint), tuple(_translate(portal, endpoint)))


def _off_cluster(cluster: tuple[Network, ...]) -> Iterator[Rule]:
    # kube-proxy knows one network a family; iptables can't say "in none of these" in one rule, and the kernel follows
    # no more than 16 jumps into one another (NFT_JUMP_STACK_SIZE): so this is a chain of its own, to return from.
    for network in cluster:
        yield Rule(Verdict.RETURN, Match(source=network))
    yield Rule(Jump("KUBE-MARK-MASQ"))


def _balance(portal: _Portal, cluster: tuple[Network, ...]) -> Iterator[Rule]:
    comment = f"{portal.name} cluster IP"
    if len(cluster) > 1:
        yield Rule(Jump("KUBE-OFF-CLUSTER"), portal.match, comment)
    elif cluster:
        yield Rule(Jump("KUBE-MARK-MASQ"), portal.match._replace(source_outside=cluster[0]), comment)
    for index, endpoint in enumerate(portal.endpoints):
        left = len(portal.endpoints) - index
        yield Rule(
            Jump(portal.endpoint_chain(endpoint)),
            Match(one_in=left) if left > 1 else Match(),
            f"{portal.name} -> {socket_address(endpoint, portal.port.target_port)}",
        )


def _translate(portal: _Portal, endpoint: Address) -> Iterator[Rule]:
    # A pod that reaches itself through the Service must see another address than its own, or the reply never
    # leaves it.
    yield Rule(Jump("KUBE-MARK-MASQ"), Match(source=endpoint), portal.name)
    yield Rule(Dnat(endpoint, portal.port.target_port), Match(protocol=portal.port.protocol), portal.name)


def _filter_chains(portals: tuple[_Portal, ...], drop_invalid: bool) -> Iterator[Chain]:
    to_forward = Rule(Jump("KUBE-FORWARD"), comment="kubernetes forwarding rules")
    to_services = Rule(Jump("KUBE-SERVICES"), Match(ct_state=(CtState.NEW,)), "kubernetes service portals")
    yield Chain("FORWARD", (to_forward, to_services), Hook("filter", "forward", 0))
    yield Chain("OUTPUT", (to_services,), Hook("filter", "output", 0))
    yield Chain(
        "KUBE-SERVICES",
        tuple(
            Rule(Verdict.REJECT, portal.match, f"{portal.name} has no endpoints")
            for portal in portals
            if not portal.endpoints
        ),
    )
    drop = (Rule(Verdict.DROP, Match(ct_state=(CtState.INVALID,))),) if drop_invalid else ()
    tracked = Match(ct_state=(CtState.RELATED, CtState.ESTABLISHED))
    yield Chain(
        "KUBE-FORWARD",
        (
            *drop,
            Rule(Verdict.ACCEPT, Match(marked=MASQUERADE_BIT), "kubernetes forwarding rules"),
            Rule(Verdict.ACCEPT, tracked, "kubernetes forwarding conntrack rule"),
        ),
    )
