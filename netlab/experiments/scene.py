"""Who plays what in an experiment: the topology's experiment with its names resolved. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from netlab.errors import UsageError
from netlab.model import Address, Protocol, Role, Topology


@dataclass(frozen=True, slots=True)
class Scene:
    """The namespaces, addresses and interfaces of one experiment.

    node is the namespace that translates for the client, server_node the one that the server hangs on. netns are
    all of these, once each: what happens in them tells the story.
    """

    client: str
    node: str
    server: str
    server_node: str | None
    vip: Address
    port: int
    endpoint: Address
    target_port: int
    payload_bytes: int
    netns: tuple[str, ...]


def scene(topology: Topology) -> Scene:
    """The scene of the topology's experiment: its Service's first TCP port, first cluster IP and first endpoint.

    UsageError where the topology has no experiment, or one whose client, Service or node can't play it.
    """
    experiment = topology.experiment
    if experiment is None:
        raise UsageError(f"lab {topology.name!r} has no experiment", "give its topology an `experiment`")
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
    server_node = topology.netns(endpoint.netns).node
    cast = (experiment.client, node, server_node, endpoint.netns)
    return Scene(
        client=experiment.client,
        node=node,
        server=endpoint.netns,
        server_node=server_node,
        vip=vip,
        port=ports[0].port,
        endpoint=addresses[0],
        target_port=ports[0].target_port,
        payload_bytes=experiment.payload_bytes,
        netns=tuple(dict.fromkeys(name for name in cast if name is not None)),
    )
