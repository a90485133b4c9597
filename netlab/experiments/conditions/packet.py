"""packet: a segment of the connection under study, seen where an interface of a namespace received or sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import COUNT, FLAGS, NETNS, OFFSET, flag_bits
from netlab.record.events import Direction, Packet, seq_diff
from netlab.record.flow import Flow, Leg
from netlab.record.observers import ObserverKind
from netlab.yamlspec.shapes import Boolean, Choice, Fields, Key

DOC = "a segment of the connection reached a namespace, or left it"
_LEGS = tuple(leg.value for leg in Leg if leg is not Leg.CANARY)
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "whose interface saw it", required=True),
        "direction": Key(Choice("a direction", ("in", "out")), "whether it was received or sent (default either)"),
        "leg": Key(Choice("a leg of the translation", _LEGS), "its addresses: whether NAT has touched it"),
        "flags": Key(FLAGS, "flags that are all set"),
        "payload": Key(Boolean(), "whether it has payload"),
        "offset": Key(OFFSET, "how far its first byte is from the end of what had crossed there before the step"),
        "count": Key(COUNT, "at least so many of them (default 1); 0: none at all"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such packet since the step began; with count 0, that there is none."""
    events = moment.flow_events
    if events is None:
        return NO_CONNECTION
    legs = [Leg(arguments["leg"])] if "leg" in arguments else [leg for leg in Leg if leg is not Leg.CANARY]
    directions = [Direction(arguments["direction"])] if "direction" in arguments else list(Direction)
    flags = flag_bits(arguments.get("flags", ()))

    def wanted(packet: Packet, before: int | None) -> bool:
        segment = packet.segment
        as_payload = "payload" not in arguments or arguments["payload"] == bool(segment.payload_bytes)
        there = "offset" not in arguments or (
            before is not None and seq_diff(segment.seq, before) == arguments["offset"]
        )
        return packet.time_ns >= moment.since_ns and segment.flags & flags == flags and as_payload and there

    found = []
    for leg in legs:
        for direction in directions:
            crossed = events.packets(arguments["in"], direction, leg)
            before = _end(crossed, moment.since_ns)
            found += [packet for packet in crossed if wanted(packet, before)]
    found = sorted(dict.fromkeys(found), key=lambda packet: packet.time_ns)  # without NAT a packet is on two legs
    seen = [_evidence(events.flow, packet, arguments) for packet in found]
    return moment.proof(_words(arguments), seen, ObserverKind.PACKETS, arguments["in"], arguments.get("count", 1))


def _end(crossed: Sequence[Packet], before_ns: int) -> int | None:
    """The highest sequence number that had crossed before; None where nothing had."""
    end: int | None = None
    for packet in crossed:
        if packet.time_ns < before_ns and (end is None or seq_diff(packet.segment.end, end) > 0):
            end = packet.segment.end
    return end


def _evidence(flow: Flow, packet: Packet, arguments: Mapping[str, Any]) -> Evidence:
    """The packet; a reply that is where no reply of the socket's would be is followed to its end by the judge."""
    if "offset" not in arguments:
        return Evidence(Link.OBSERVED, packet)
    reply = packet.netns == flow.server and packet.direction is Direction.OUT
    side = "past" if arguments["offset"] >= 0 else "before"
    note = f"begins {abs(arguments['offset']):,} bytes {side} the end of what had been sent"
    return Evidence(Link.REPLY if reply else Link.OBSERVED, packet, note)


def _words(arguments: Mapping[str, Any]) -> str:
    words = ["a segment"]
    if "flags" in arguments:
        words.append(f"with {','.join(arguments['flags'])}")
    if "payload" in arguments:
        words.append("with payload" if arguments["payload"] else "without payload")
    if "offset" in arguments:
        words.append(f"{arguments['offset']:+,} bytes from the end of what was sent")
    if "leg" in arguments:
        words.append(f"({arguments['leg']})")
    verb = {"in": "reaching", "out": "leaving"}.get(arguments.get("direction", ""), "on the interfaces of")
    return " ".join([*words, verb, arguments["in"]])
