"""Where the packets of a trial's evidence are drawn: on which side of the namespace in the middle, and in which
direction. Pure."""

from __future__ import annotations

from netlab.analysis.result import Link, TrialResult
from netlab.record.events import Direction, Packet
from netlab.record.flow import Flow, ends, inverse


def middle(trial: TrialResult) -> str:
    """The namespace between client and server: the node that translates, or who sent the RST where that is neither end;
    empty where there is none."""
    flow = trial.flow
    rst = next((piece.event.netns for piece in trial.evidence if piece.link is Link.RST), None)
    return rst if rst and rst not in (flow.client, flow.server) else flow.node or ""


def to_server(flow: Flow, packet: Packet) -> bool:
    """Whether a packet goes to the server's side: by the flow's headers, or to what is no address of the client."""
    header = ends(packet.segment)
    if header in flow.headers():
        return True
    if inverse(header) in flow.headers():
        return False
    return header[2:] not in ((flow.client_address, flow.client_port), flow.peer)


def beyond(flow: Flow, packet: Packet) -> bool:
    """Whether a packet was seen on the server's side of the one in the middle."""
    netns, out = packet.netns, packet.direction is Direction.OUT
    ahead = to_server(flow, packet)
    if netns == flow.client and netns != flow.server:
        return False
    if netns == flow.server and netns != flow.client:
        return True
    if netns == flow.client:  # and the server's too, as of a pod that calls itself
        return ahead is not out
    header = ends(packet.segment)
    leg = header if ahead else inverse(header)
    if flow.translated and leg in flow.headers():
        return leg != flow.headers()[0]
    return ahead is out
