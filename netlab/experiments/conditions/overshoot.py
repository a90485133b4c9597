"""overshoot: a segment came to a conntrack that finds it so far past the receiver's window that no kernel forgives it.

What conntrack knows of the window is computed from the packets that it saw, its events, and the kernel's own arithmetic
(`conntrack/window.py`), not read from its log: it says so also where the kernel is told not to hold windows against
packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.conntrack.kernels import Rules
from netlab.conntrack.tracker import follow
from netlab.conntrack.values import Checked, Failure
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import TRACKER
from netlab.record.events import ConntrackEvent, Direction, Packet
from netlab.record.flow import FlowEvents, Leg
from netlab.yamlspec.shapes import Fields, Key

DOC = "a segment of the server's ends further past the window of a namespace's conntrack than any kernel forgives"
ARGUMENTS = Fields({"in": Key(TRACKER, "the namespace whose conntrack it is", required=True)})


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such segment since the step began, as it left the server."""
    events, netns = moment.flow_events, arguments["in"]
    if events is None:
        return NO_CONNECTION
    entries = [event for event in moment.events if isinstance(event, ConntrackEvent) and event.netns == netns]
    arrivals = _arrivals(events, netns)
    for checked in follow(arrivals, Rules(), translations=events.flow.translations(), entries=entries):
        departure = _departure(events, checked, moment.since_ns)
        if departure is not None:
            note = (
                f"ends {checked.beyond_bytes:,} bytes past the window that conntrack on {netns} knows; it forgives at "
                f"most {checked.forgiven_bytes:,}"
            )
            return Proof((Evidence(Link.REPLY, departure, note),))
    return Proof((), f"a segment far past the window that conntrack on {netns} knows")


def _arrivals(events: FlowEvents, netns: str) -> list[Packet]:
    """What came into the namespace, each packet once: a bridge and its port both see it."""
    found: list[Packet] = []
    for leg in (Leg.CLIENT_TO_VIP, Leg.ENDPOINT_TO_CLIENT):
        came = events.packets(netns, Direction.IN, leg)
        found += [packet for packet in came if packet.ifname == came[0].ifname]
    return sorted(found, key=lambda packet: packet.time_ns)


def _departure(events: FlowEvents, checked: Checked, since_ns: int) -> Packet | None:
    segment = checked.packet.segment
    if checked.failure is not Failure.SEQ_OVER or segment.src != events.flow.endpoint:
        return None
    for packet in events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT):
        if since_ns <= packet.time_ns <= checked.packet.time_ns and packet.segment.same_packet(segment):
            return packet
    return None
