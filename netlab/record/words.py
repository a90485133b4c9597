"""Headers and datagrams in words: UDP, SCTP, ICMP and its errors by their names. Pure."""

from __future__ import annotations

from netlab.model import Address
from netlab.record.events import Datagram, TraceStep, Tuple
from netlab.record.flow import Ends
from netlab.record.wire import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, icmp_name

PROTOCOLS = {
    IPPROTO_ICMP: "icmp",
    IPPROTO_TCP: "tcp",
    IPPROTO_UDP: "udp",
    IPPROTO_ICMPV6: "icmpv6",
    IPPROTO_SCTP: "sctp",
}
"""IANA's protocol numbers, those that conntrack knows."""


def endpoint(address: Address, port: int) -> str:
    """An address and its port as one word: 10.0.0.2:80, [fd00::2]:80; without a port, 0, the address alone."""
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def arrow(header: Ends) -> str:
    """A header in words: "10.0.0.2:40000 > 10.0.0.3:53"."""
    return f"{endpoint(*header[:2])} > {endpoint(*header[2:])}"


def rule(step: TraceStep) -> str:
    """The rule of a step, or its chain's policy: "rule `tcp dport 22 drop` of chain FORWARD (ip filter, handle 7)"."""
    what = f"rule `{step.rule}`" if step.rule else "the policy"
    handle = f", handle {step.rule_handle}" if step.rule_handle else ""
    return f"{what} of chain {step.chain} ({step.family} {step.table}{handle})"


def protocol(number: int) -> str:
    """The name of an IP protocol: tcp, icmpv6, "protocol 47"."""
    return PROTOCOLS.get(number, f"protocol {number}")


def kind(datagram: Datagram) -> str:
    """What it is in a few words: "UDP", "ICMP port unreachable", "ICMP type 8 code 0"."""
    name = protocol(datagram.header.proto).replace("icmpv6", "ICMPv6")
    name = name if name == "ICMPv6" else name.upper()
    return name if datagram.icmp_type is None else f"{name} {icmp_name(datagram)}"


def ends(header: Tuple) -> str:
    """Source and destination: "10.0.0.2:40000 > 10.0.0.3:53", without ports where there are none."""
    return f"{endpoint(header.src, header.sport)} > {endpoint(header.dst, header.dport)}"


def describe(datagram: Datagram) -> str:
    """All of it in a line: "10.0.1.2 > 10.0.0.2 ICMP port unreachable len 34, about udp 10.0.0.2:40000 > …"."""
    about = f", about {protocol(datagram.about.proto)} {ends(datagram.about)}" if datagram.about else ""
    return f"{ends(datagram.header)} {kind(datagram)} len {datagram.payload_bytes}{about}"
