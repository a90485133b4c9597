"""packet: a segment of the connection under study, seen where an interface of a namespace received or sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.conditions import Moment
from netlab.events import ACK, FIN, PSH, RST, SYN, Direction, Packet
from netlab.experiments.words import COUNT, NETNS
from netlab.flow import Leg
from netlab.judge import Evidence, Link, Proof
from netlab.topology.shapes import Boolean, Choice, Fields, Key, ListOf

DOC = "a segment of the connection reached a namespace, or left it"
_FLAGS = {"SYN": SYN, "ACK": ACK, "FIN": FIN, "RST": RST, "PSH": PSH}
_LEGS = tuple(leg.value for leg in Leg if leg is not Leg.CANARY)
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "whose interface saw it", required=True),
        "direction": Key(Choice("a direction", ("in", "out")), "whether it was received or sent (default either)"),
        "leg": Key(Choice("a leg of the translation", _LEGS), "its addresses: whether NAT has touched it"),
        "flags": Key(ListOf(Choice("a TCP flag", tuple(_FLAGS)), single=True), "flags that are all set"),
        "payload": Key(Boolean(), "whether it has payload"),
        "count": Key(COUNT, "at least so many of them (default 1); 0: none at all"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such packet since the step began; with count 0, that there is none."""
    events = moment.flow_events
    if events is None:
        return Proof((), "a connection whose packets can be told")
    legs = [Leg(arguments["leg"])] if "leg" in arguments else [leg for leg in Leg if leg is not Leg.CANARY]
    directions = [Direction(arguments["direction"])] if "direction" in arguments else list(Direction)
    flags = sum(_FLAGS[name] for name in arguments.get("flags", ()))

    def wanted(packet: Packet) -> bool:
        segment = packet.segment
        as_payload = "payload" not in arguments or arguments["payload"] == bool(segment.payload_bytes)
        return packet.time_ns >= moment.since_ns and segment.flags & flags == flags and as_payload

    found = [
        packet
        for leg in legs
        for direction in directions
        for packet in events.packets(arguments["in"], direction, leg)
        if wanted(packet)
    ]
    found.sort(key=lambda packet: packet.time_ns)
    count = arguments.get("count", 1)
    if count == 0:
        return Proof((), f"the absence of {_words(arguments)}: {len(found)} seen") if found else Proof(())
    if len(found) < count:
        number = f"{count} times " if count > 1 else ""
        return Proof((), f"{number}{_words(arguments)}{f' ({len(found)} seen)' if found else ''}")
    return Proof((Evidence(Link.OBSERVED, found[0]),))


def _words(arguments: Mapping[str, Any]) -> str:
    words = ["a segment"]
    if "flags" in arguments:
        words.append(f"with {','.join(arguments['flags'])}")
    if "payload" in arguments:
        words.append("with payload" if arguments["payload"] else "without payload")
    if "leg" in arguments:
        words.append(f"({arguments['leg']})")
    verb = {"in": "reaching", "out": "leaving"}.get(arguments.get("direction", ""), "on the interfaces of")
    return " ".join([*words, verb, arguments["in"]])
