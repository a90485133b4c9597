"""What `status` shows of a lab that is its topology's alone: no kernel is asked for it. Pure."""

from __future__ import annotations

from typing import Any

from netlab.model import ServicePort, Topology


def shown(topology: Topology) -> dict[str, Any]:
    """The namespaces with their addresses, and the Services, in words that JSON has."""
    addresses: dict[str, list[str]] = {netns.name: [*map(str, netns.loopback)] for netns in topology.namespaces}
    for interface in topology.interfaces():
        addresses[interface.netns] += [f"{address} {interface.ifname}" for address in interface.addresses]
    return {
        "namespaces": [
            {"netns": netns.name, "role": netns.role.value, "addresses": addresses[netns.name]}
            for netns in topology.namespaces
        ],
        "services": [
            {
                "service": service.name,
                "cluster_ips": [str(address) for address in service.cluster_ips],
                "external_ips": [str(ip) for ip in (*service.external_ips, *service.load_balancer_ips)],
                "ports": [_port(port) for port in service.ports],
                "endpoints": [endpoint.netns for endpoint in service.endpoints],
            }
            for service in topology.services
        ],
    }


def _port(port: ServicePort) -> str:
    """As kubectl has it: "80/TCP", or "80:30080/TCP" with a node port."""
    return f"{port.port}{'' if port.node_port is None else f':{port.node_port}'}/{port.protocol}"
