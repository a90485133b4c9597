"""Hand-made events of one connection through a Service, each with a name, for tests that change one thing.

The client is 10.0.0.2:40000, the VIP 192.168.0.2:80, the endpoint 10.0.1.2:8080; the client's initial sequence number
is 1000, the server's 5000. Times are microseconds after START_NS.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from netlab.analysis.findings import analyse
from netlab.analysis.judge import Observed, judge_trial
from netlab.analysis.result import Proof, TrialResult
from netlab.experiments.conditions import burst
from netlab.experiments.moment import Moment
from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Direction,
    Event,
    InvalidReason,
    Packet,
    Segment,
    SocketEvent,
    SocketEventKind,
    Witness,
)
from netlab.record.flow import CANARY_PORT, Flow, FlowEvents, Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording

CLAIM = "A burst past the client's small window makes NAT skip packets, and the connection is reset."
START_NS = 1_700_000_000_000_000_000
CANARIES = (0, 1)
PAYLOAD_BYTES = 10_000

FLOW = Flow(
    client="client",
    node="client-node",
    server="server",
    server_node="server-node",
    client_address=ip_address("10.0.0.2"),
    client_port=40000,
    vip=ip_address("192.168.0.2"),
    port=80,
    endpoint=ip_address("10.0.1.2"),
    target_port=8080,
)
UPPER_BOUND = "SEQ is over upper bound 7307 (over the window of the receiver)"
REPLY = (8073, 1005, 4000)
"""seq, ack and length of the reply that starts past the client's window and ends 4,767 bytes past it."""

_ENDS = {leg: FLOW.header(leg) for leg in Leg}


def prove(events: FlowEvents) -> Proof:
    """Whether the stimulus of window-overrun took place."""
    return burst.look(Moment((), events, 0, None), {})


def judge(observed: Observed, prove: Callable[[FlowEvents], Proof] = prove) -> TrialResult:
    """A trial judged by its own events alone."""
    findings = analyse(recording_of(observed, observed.flow))
    return judge_trial(observed, prove(FlowEvents(observed.flow, observed.events)), findings)


def recording_of(observed: Observed, *flows: Flow) -> Recording:
    """What was observed of a trial as a recording, with these flows under study."""
    end_ns = observed.started_ns + round(observed.duration_s * 1e9)
    return Recording(
        lab="kube-proxy-reset",
        kernel="6.18.44",
        started_ns=observed.started_ns,
        ended_ns=end_ns,
        topology="",
        settings=(),
        fixes=(),
        taps=(),
        flows=flows,
        events=observed.events,
        lost=observed.lost,
    )


def segment(leg: Leg, flags: int, seq: int, ack: int, length: int = 0, window: int = 64) -> Segment:
    """A segment on a leg; SYNs have the window scale option 0."""
    return Segment(*_ENDS[leg], seq, ack, flags, window, length, 0 if flags & SYN else None)


def packet(at_us: int, netns: str, direction: str, hop: Segment, ifname: str = "eth0") -> Packet:
    """A segment crossing an interface."""
    return Packet(START_NS + at_us * 1000, netns, ifname, Direction(direction), hop)


def reason(at_us: int, netns: str, text: str, logged: Segment) -> InvalidReason:
    """What conntrack logged."""
    return InvalidReason(START_NS + at_us * 1000, netns, "eth0", text, logged)


def error(at_us: int, netns: str, code: int = errno.ECONNRESET) -> SocketEvent:
    """An errno at a socket."""
    return SocketEvent(START_NS + at_us * 1000, netns, SocketEventKind.ERROR, errno=code)


def _canary(at_us: int, seq: int, when: str) -> dict[str, Witness]:
    sent = Segment(FLOW.client_address, CANARY_PORT, FLOW.vip, FLOW.port, seq, 0, 0, 0, 0)
    return {
        f"canary {when}, client": packet(at_us, "client", "out", sent),
        f"canary {when}, node": packet(at_us + 1, "client-node", "in", sent),
        f"canary {when}, reason": reason(at_us + 1, "client-node", "bad tcp checksum", sent),
    }


def _opening() -> dict[str, Witness]:
    """A handshake, a request, and a client that lets its window of 2,304 bytes fill up; the window is made stale."""
    syn = segment(Leg.CLIENT_TO_VIP, SYN, 1000, 0, window=2304)
    request = segment(Leg.CLIENT_TO_VIP, PSH | ACK, 1001, 5001, 4, window=2304)
    translated = segment(Leg.CLIENT_TO_ENDPOINT, PSH | ACK, 1001, 5001, 4, window=2304)
    return {
        **_canary(0, CANARIES[0], "before"),
        "syn": packet(10, "client", "out", syn),
        "syn at server": packet(12, "server", "in", segment(Leg.CLIENT_TO_ENDPOINT, SYN, 1000, 0, window=2304)),
        "syn,ack": packet(13, "server", "out", segment(Leg.ENDPOINT_TO_CLIENT, SYN | ACK, 5000, 1001)),
        "syn,ack at client": packet(14, "client", "in", segment(Leg.VIP_TO_CLIENT, SYN | ACK, 5000, 1001)),
        "ack": packet(15, "client", "out", segment(Leg.CLIENT_TO_VIP, ACK, 1001, 5001, window=2304)),
        "request": packet(20, "client", "out", request),
        "request translated": packet(22, "client-node", "out", translated),
        "request at server": packet(24, "server", "in", translated),
        "fill": packet(30, "server", "out", segment(Leg.ENDPOINT_TO_CLIENT, ACK, 5001, 1005, 2304)),
        "fill at client": packet(32, "client", "in", segment(Leg.VIP_TO_CLIENT, ACK, 5001, 1005, 2304)),
        "fill acked": packet(35, "client", "out", segment(Leg.CLIENT_TO_VIP, ACK, 1005, 7305, window=0)),
        "stale window": SocketEvent(
            START_NS + 50_000, "server", SocketEventKind.STALE_WINDOW, window_bytes=1 << 20, was_bytes=0
        ),
        "burst": packet(60, "server", "out", segment(Leg.ENDPOINT_TO_CLIENT, ACK, 7305, 1005, 768)),
        "burst at client": packet(61, "client", "in", segment(Leg.VIP_TO_CLIENT, ACK, 7305, 1005, 768)),
        "reply": packet(61, "server", "out", segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *REPLY)),
    }


def reset() -> dict[str, Witness]:
    """The whole chain, from the request to ECONNRESET at both ends."""
    bad = segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *REPLY)
    rst = segment(Leg.CLIENT_TO_ENDPOINT, RST, 1005, 0, window=0)
    return {
        **_opening(),
        "reply at node": packet(62, "client-node", "in", bad),
        "invalid": reason(63, "client-node", UPPER_BOUND, bad),
        "reply from node": packet(63, "client-node", "out", bad, "cni0"),
        "reply untranslated": packet(64, "client", "in", bad),
        "rst": packet(65, "client", "out", rst),
        "rst at server": packet(67, "server", "in", rst),
        "server reset": error(90, "server"),
        "client reset": error(95, "client"),
        **_canary(100, CANARIES[1], "after"),
    }


def _closing() -> dict[str, Witness]:
    return {
        "fin": packet(80, "server", "out", segment(Leg.ENDPOINT_TO_CLIENT, FIN | ACK, 15001, 1005)),
        "fin at client": packet(82, "client", "in", segment(Leg.VIP_TO_CLIENT, FIN | ACK, 15001, 1005)),
        **_canary(100, CANARIES[1], "after"),
    }


def dropped() -> dict[str, Witness]:
    """The overrun is dropped by the server's node, sent again, and all arrives."""
    bad = segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *REPLY)
    return {
        **_opening(),
        "reply at node": packet(62, "server-node", "in", bad),
        "invalid": reason(62, "server-node", UPPER_BOUND, bad),
        "reply again": packet(70, "server", "out", bad),
        "reply translated": packet(72, "client", "in", segment(Leg.VIP_TO_CLIENT, PSH | ACK, *REPLY)),
        **_closing(),
    }


def accepted() -> dict[str, Witness]:
    """The overrun is accepted and translated as any reply."""
    return {
        **_opening(),
        "reply translated": packet(64, "client", "in", segment(Leg.VIP_TO_CLIENT, PSH | ACK, *REPLY)),
        **_closing(),
    }


def without(events: Mapping[str, Witness], *names: str) -> dict[str, Witness]:
    """The events but those; KeyError for a name that is none."""
    left = dict(events)
    for name in names:
        del left[name]
    return left


def moved(events: Mapping[str, Witness], name: str, at_us: int) -> dict[str, Witness]:
    """The events, one of them at another time."""
    return {**events, name: replace(events[name], time_ns=START_NS + at_us * 1000)}


def observed(events: Mapping[str, Event] | Iterable[Event], **changes: Any) -> Observed:
    """The events as one trial in which the client got everything, where changes don't say otherwise."""
    values = events.values() if isinstance(events, Mapping) else events
    whole = Observed(
        flow=FLOW,
        events=tuple(values),
        lost=(
            (ObserverId(ObserverKind.PACKETS, "client", "eth0"), 0),
            (ObserverId(ObserverKind.REASONS, "client-node"), 0),
        ),
        canaries=CANARIES,
        payload_bytes=PAYLOAD_BYTES,
        bytes_received=PAYLOAD_BYTES,
        intact=True,
        ended=True,
        started_ns=START_NS,
        duration_s=0.25,
    )
    return replace(whole, **changes)
