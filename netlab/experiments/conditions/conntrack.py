"""conntrack: what conntrack in a namespace makes of a segment of the connection, as its rules see it (`ct state`).

A rule of the observers' own asks, as anybody's may: what conntrack logs is no verdict, since from Linux 6.1 on it logs
what it lets pass, too (`invalid`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import END, FLAGS, TRACKER, flag_bits
from netlab.record.events import Direction, Packet, Segment, TraceStep
from netlab.record.flow import FlowEvents, Leg
from netlab.record.observers import ObserverKind
from netlab.yamlspec.shapes import Boolean, Choice, Fields, Key

DOC = "conntrack in a namespace finds a segment of the connection INVALID, or all such segments VALID"
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "verdict": Key(
            Choice("a verdict", ("INVALID", "VALID")),
            "INVALID: at least one segment; VALID: every segment that arrives, and at least one",
            required=True,
        ),
        "from": Key(END, "whose segment (default either)"),
        "flags": Key(FLAGS, "flags that are all set"),
        "payload": Key(Boolean(), "whether it has payload"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such verdict since the step began; of VALID ones, the first such segment, and no INVALID one."""
    events, netns = moment.flow_events, arguments["in"]
    if events is None:
        return NO_CONNECTION
    what = _words(arguments)
    invalid = [Evidence(Link.OBSERVED, step) for step in _found_invalid(events, moment.since_ns, arguments)]
    if arguments["verdict"] == "INVALID":
        what = f"{what} that conntrack in {netns} finds INVALID"
        return moment.of_what_crossed(netns).proof(what, invalid, ObserverKind.TRACES, netns)
    if invalid:
        return moment.proof(f"{what} that conntrack in {netns} finds INVALID", invalid, ObserverKind.TRACES, netns, 0)
    came = [Evidence(Link.OBSERVED, packet) for packet in _came(events, moment.since_ns, arguments)]
    # Where none came there, conntrack can't have said anything of it.
    return replace(moment, whole=None).proof(f"{what} coming to {netns}", came, ObserverKind.PACKETS, netns)


def _found_invalid(events: FlowEvents, since_ns: int, arguments: Mapping[str, Any]) -> Iterator[TraceStep]:
    for step in events.verdicts(arguments["in"]):
        if step.segment is not None and step.time_ns >= since_ns and _is(events, step.segment, arguments):
            yield step


def _came(events: FlowEvents, since_ns: int, arguments: Mapping[str, Any]) -> Iterator[Packet]:
    for leg in (leg for leg in Leg if leg is not Leg.CANARY):
        for packet in events.packets(arguments["in"], Direction.IN, leg):
            if packet.time_ns >= since_ns and _is(events, packet.segment, arguments):
                yield packet


def _is(events: FlowEvents, segment: Segment, arguments: Mapping[str, Any]) -> bool:
    flow, flags = events.flow, flag_bits(arguments.get("flags", ()))
    header = (segment.src, segment.sport, segment.dst, segment.dport)
    legs = flow.legs().get(header, ())
    if not legs or Leg.CANARY in legs:
        return False
    sender = "client" if Leg.CLIENT_TO_VIP in legs or Leg.CLIENT_TO_ENDPOINT in legs else "server"
    return (
        arguments.get("from", sender) == sender
        and segment.flags & flags == flags
        and arguments.get("payload", bool(segment.payload_bytes)) == bool(segment.payload_bytes)
    )


def _words(arguments: Mapping[str, Any]) -> str:
    words = ["a segment"]
    if "from" in arguments:
        words.append(f"of the {arguments['from']}'s")
    if "flags" in arguments:
        words.append(f"with {','.join(arguments['flags'])}")
    if "payload" in arguments:
        words.append("with payload" if arguments["payload"] else "without payload")
    return " ".join(words)
