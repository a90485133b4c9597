"""datagram: a packet that is no TCP segment reached a namespace, or left it: UDP, SCTP, or an ICMP error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import Moment
from netlab.experiments.words import COUNT, NETNS, PORT
from netlab.record.events import DatagramPacket
from netlab.record.flow import about_canary
from netlab.record.observers import ObserverKind
from netlab.record.wire import ICMP_NAMES, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_UDP, icmp_name
from netlab.yamlspec.shapes import Choice, Fields, Key

DOC = "a packet without TCP reached a namespace, or left it"
_PROTOCOLS = {"udp": (IPPROTO_UDP,), "sctp": (IPPROTO_SCTP,), "icmp": (IPPROTO_ICMP, IPPROTO_ICMPV6)}
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "whose interface saw it", required=True),
        "direction": Key(Choice("a direction", ("in", "out")), "whether it was received or sent (default either)"),
        "protocol": Key(Choice("a protocol", tuple(_PROTOCOLS)), "of ICMP only errors are seen (default any)"),
        "icmp": Key(Choice("an ICMP error", ICMP_NAMES), "its name"),
        "port": Key(PORT, "its destination port; for an ICMP error, that of the quoted packet"),
        "count": Key(COUNT, "at least so many of them (default 1); 0: none at all"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such packet since the step began; with count 0, that there is none."""
    events = (event for event in moment.since() if isinstance(event, DatagramPacket))
    found = [Evidence(Link.OBSERVED, event) for event in events if _is(event, arguments)]
    netns, count = arguments["in"], arguments.get("count", 1)
    return moment.proof(_words(arguments), found, ObserverKind.PACKETS, netns, count)


def _is(event: DatagramPacket, arguments: Mapping[str, Any]) -> bool:
    datagram = event.datagram
    header = datagram.about or datagram.header
    return (
        event.netns == arguments["in"]
        and not about_canary(datagram)
        and arguments.get("direction", event.direction) == event.direction
        and ("protocol" not in arguments or datagram.header.proto in _PROTOCOLS[arguments["protocol"]])
        and arguments.get("icmp", icmp_name(datagram)) == icmp_name(datagram)
        and arguments.get("port", header.dport) == header.dport
    )


def _words(arguments: Mapping[str, Any]) -> str:
    words = [f"an ICMP error ({arguments['icmp']})" if "icmp" in arguments else "a packet without TCP"]
    if "protocol" in arguments and "icmp" not in arguments:
        words.append(f"({arguments['protocol']})")
    if "port" in arguments:
        words.append(f"of port {arguments['port']}")
    verb = {"in": "reaching", "out": "leaving"}.get(arguments.get("direction", ""), "on the interfaces of")
    return " ".join([*words, verb, arguments["in"]])
