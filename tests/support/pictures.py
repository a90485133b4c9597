"""Hand-made runs for the pictures: each packet at every interface it crosses, between the namespaces of the flagship.

The addresses, the numbers and the trial's frame (canaries, socket events) are those of `story.py`; its events are only
what a judge needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import story

from netlab.analysis.judge import Observed
from netlab.analysis.result import Result
from netlab.record.events import ACK, FIN, PSH, RST, SYN, Event, SocketEvent, SocketEventKind
from netlab.record.flow import Flow, Leg
from netlab.record.observers import ObserverId, ObserverKind, Unobserved
from netlab.record.recording import Recording, Tap

TOPOLOGY = """\
name: kube-proxy-reset
description: A connection reset through conntrack's INVALID
namespaces:
  client: {role: pod}
  client-node: {role: node}
  server-node: {role: node}
  server: {role: pod}
bridges:
  - {name: cni0, netns: client-node, addresses: 10.0.0.1/24, ports: [{netns: client, addresses: 10.0.0.2/24}]}
  - {name: cni0, netns: server-node, addresses: 10.0.1.1/24, ports: [{netns: server, addresses: 10.0.1.2/24}]}
links:
  - {ends: ["client-node:eth0", "server-node:eth0"], subnet: 10.1.0.0/24}
services:
  web: {cluster_ip: 192.168.0.2, ports: [{port: 80, target_port: 8080}], endpoints: [server]}
kube_proxy: {nodes: [client-node]}
"""

WAY = (
    ("client", "eth0", "out"),
    ("client-node", "veth-client", "in"),
    ("client-node", "eth0", "out"),
    ("server-node", "eth0", "in"),
    ("server-node", "veth-server", "out"),
    ("server", "eth0", "in"),
)
TURNED = {"in": "out", "out": "in"}
TAPS = tuple(Tap(netns, ifname, "node" if "node" in netns else "pod") for netns, ifname, _ in WAY)


def to_server(at_us: int, flags: int, seq: int, ack: int, length: int = 0, window: int = 2304) -> list[Event]:
    """The client's packet on its whole way to the VIP, a microsecond a step."""
    events: list[Event] = []
    for step, (netns, ifname, direction) in enumerate(WAY):
        leg = Leg.CLIENT_TO_VIP if step < 2 else Leg.CLIENT_TO_ENDPOINT
        segment = replace(story.segment(leg, flags, seq, ack, length, window), ip_id=at_us)
        events.append(story.packet(at_us + step, netns, direction, segment, ifname))
    return events


def to_client(
    at_us: int, flags: int, seq: int, ack: int, length: int = 0, *, steps: int = 6, invalid: bool = False
) -> list[Event]:
    """The server's packet on its way back; conntrack finds it INVALID, or it comes no further than so many steps."""
    events: list[Event] = []
    for step, (netns, ifname, direction) in enumerate(reversed(WAY)):
        if step >= steps:
            break
        bare = invalid or step < 4
        leg = Leg.ENDPOINT_TO_CLIENT if bare else Leg.VIP_TO_CLIENT
        segment = replace(story.segment(leg, flags, seq, ack, length), ip_id=at_us)
        events.append(story.packet(at_us + step, netns, TURNED[direction], segment, ifname))
        if invalid and step == 3:
            events.append(story.reason(at_us + step, "client-node", story.UPPER_BOUND, segment))
    return events


def rst(at_us: int, seq: int) -> list[Event]:
    """The client's RST to the server's own address, which is INVALID itself."""
    segment = replace(story.segment(Leg.CLIENT_TO_ENDPOINT, RST, seq, 0, window=0), ip_id=at_us)
    hops = [
        story.packet(at_us + step, netns, direction, segment, ifname)
        for step, (netns, ifname, direction) in enumerate(WAY)
    ]
    return [*hops, story.reason(at_us + 1, "client-node", "invalid new", segment)]


def opening() -> list[Event]:
    """A handshake, a request, as much data as the window takes, and the stale window."""
    frame = [event for name, event in story.reset().items() if name.startswith("canary")]
    stale = SocketEvent(
        story.START_NS + 50_000, "server", SocketEventKind.STALE_WINDOW, window_bytes=1 << 20, was_bytes=0
    )
    return [
        *frame,
        *to_server(10, SYN, 1000, 0),
        *to_client(20, SYN | ACK, 5000, 1001),
        *to_server(28, ACK, 1001, 5001),
        *to_server(30, PSH | ACK, 1001, 5001, 4),
        *to_client(36, ACK, 5001, 1005, 2304),
        *to_server(43, ACK, 1005, 7305, 0, 0),
        stale,
        *to_client(51, ACK, 7305, 1005, 768),
    ]


def reset() -> list[Event]:
    """The whole chain, and two more packets past the window with the RSTs they get."""
    seq, ack, length = story.REPLY
    return [
        *opening(),
        *to_client(60, PSH | ACK, seq, ack, length, invalid=True),
        *rst(66, ack),
        *to_client(73, ACK, seq + length, ack, 500, invalid=True),
        *rst(80, ack),
        story.error(90, "server"),
        story.error(95, "client"),
    ]


def _burst_again_and_fin() -> list[Event]:
    """From the retransmission of the reply to the end: many small packets, each acknowledged."""
    seq, ack, length = story.REPLY
    data = [to_client(200 + 20 * i, ACK, seq + length + 100 * i, ack, 100) for i in range(9)]
    acks = [to_server(210 + 20 * i, ACK, ack, seq + length + 100 * (i + 1)) for i in range(9)]
    return [
        *to_server(150, ACK, ack, 8073, 0, 4000),
        *to_client(170, PSH | ACK, seq, ack, length),
        *to_server(180, ACK, ack, seq + length),
        *(event for pair in zip(data, acks, strict=True) for packet in pair for event in packet),
        *to_client(600, FIN | ACK, seq + length + 900, ack),
        *to_server(620, FIN | ACK, ack, seq + length + 901),
        *to_client(640, ACK, seq + length + 901, ack + 1),
    ]


def dropped() -> list[Event]:
    """The packet past the window is dropped on the client's node, and sent again when there is room."""
    seq, ack, length = story.REPLY
    return [*opening(), *to_client(60, PSH | ACK, seq, ack, length, steps=4, invalid=True), *_burst_again_and_fin()]


def accepted() -> list[Event]:
    """The packet past the window is accepted and translated as any other."""
    seq, ack, length = story.REPLY
    rest = [event for event in _burst_again_and_fin() if event.time_ns >= story.START_NS + 180_000]
    return [*opening(), *to_client(60, PSH | ACK, seq, ack, length), *rest]


def stalled() -> list[Event]:
    """The packet past the window is dropped, and nothing comes after it."""
    seq, ack, length = story.REPLY
    return [*opening(), *to_client(60, PSH | ACK, seq, ack, length, steps=4, invalid=True)]


def run(*trials: Iterable[Event], fixes: tuple[str, ...] = (), **changes: Any) -> tuple[Result, Recording]:
    """The run of these trials, judged, and its recording; changes are of each trial's Observed."""
    observed: list[Observed] = [story.observed(tuple(events), duration_s=0.001, **changes) for events in trials]
    result = Result(
        experiment="window-overrun",
        claim=story.CLAIM,
        lab="kube-proxy-reset",
        fixes=fixes,
        kernel="6.18.44",
        trials=tuple(story.judge(trial) for trial in observed),
    )
    lost = observed[0].lost if observed else ()
    untraced = Unobserved(ObserverId(ObserverKind.TRACES, "client-node"), "this kernel has none")
    events = [event for trial in observed for event in trial.events]
    return result, recording([trial.flow for trial in observed], events, fixes=fixes, lost=lost, unobserved=(untraced,))


def recording(flows: Iterable[Flow], events: Iterable[Event], **changes: Any) -> Recording:
    """What was seen in the pictures' lab in a millisecond; changes are of the Recording's other members."""
    whole = Recording(
        lab="kube-proxy-reset",
        kernel="6.18.44",
        started_ns=story.START_NS,
        ended_ns=story.START_NS + 1_000_000,
        topology=TOPOLOGY,
        settings=(),
        fixes=(),
        taps=TAPS,
        flows=tuple(flows),
        events=tuple(events),
    )
    return replace(whole, **changes)
