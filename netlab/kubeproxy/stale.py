"""Where the UDP Services of a node may lead: what conntrack remembers otherwise is stale.

A UDP flow has no end that conntrack sees, and each datagram of it keeps its entry, translated to an endpoint that may
be gone. So kube-proxy deletes such entries when Services or endpoints change (CleanStaleEntries, pkg/proxy/conntrack/
cleanup.go, of v1.33); those of a Service without any endpoint it leaves (until pull request 139629, in 2026). TCP
connections end by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from netlab.kubeproxy.portals import portals
from netlab.model import Address, Protocol, Topology


class Frontend(NamedTuple):
    """What UDP clients of a Service send to, in one IP version, and every (address, port) that may answer.

    address None is any: node ports are known by their number alone, as to kube-proxy.
    """

    version: int
    address: Address | None
    port: int
    endpoints: tuple[tuple[Address, int], ...]


def frontends(topology: Topology, node: str) -> tuple[Frontend, ...]:
    """Those of the Services with endpoints, whatever traffic policies say: a flow that began goes on."""
    return tuple(found for version in (4, 6) for found in _frontends(topology, node, version))


def _frontends(topology: Topology, node: str, version: int) -> Iterator[Frontend]:
    for portal in portals(topology.services, node, version):
        if portal.port.protocol is Protocol.UDP and portal.endpoints:
            endpoints = tuple((endpoint, portal.port.target_port) for endpoint in portal.endpoints)
            for address in (portal.cluster_ip, *portal.external_ips, *portal.load_balancer_ips):
                yield Frontend(version, address, portal.port.port, endpoints)
            if portal.port.node_port is not None:
                yield Frontend(version, None, portal.port.node_port, endpoints)
