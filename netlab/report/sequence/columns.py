"""Which namespaces have a lifeline in a diagram, in which order, and under which label. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.paths import PacketPath
from netlab.record.flow import Flow
from netlab.report.sequence.diagram import Column


def lifelines(flow: Flow, paths: Iterable[PacketPath], datagram_paths: Iterable[DatagramPath]) -> tuple[Column, ...]:
    """The lifelines of all namespaces that one of these packets came through, the client's first, the server's last."""
    order = _order(flow, paths)
    for packet in (packet for datagram_path in datagram_paths for packet in datagram_path.hops):
        if packet.netns not in order:
            order.insert(-1, packet.netns)
    labels = {
        flow.node or "": f"VIP {flow.vip}" if flow.vip != flow.endpoint else "",
        flow.client: str(flow.client_address),
        flow.server: str(flow.endpoint),
    }
    return tuple(Column(netns, labels.get(netns, "")) for netns in order)


def _order(flow: Flow, paths: Iterable[PacketPath]) -> list[str]:
    """The namespaces from the client's to the server's, each further one where the packets say it lies."""
    cast = (flow.client, flow.node, flow.server_node, flow.server)
    order = list(dict.fromkeys(netns for netns in cast if netns is not None))
    for path in paths:
        way = list(dict.fromkeys(hop.netns for hop in path.hops))
        if not path.to_server:
            way.reverse()
        for before, netns in pairwise([flow.client, *way]):
            if netns not in order:
                order.insert(min(order.index(before) + 1, len(order) - 1), netns)
    return order
