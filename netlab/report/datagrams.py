"""A datagram in words: UDP, SCTP, ICMP and its errors by their names. Pure."""

from __future__ import annotations

from netlab.events import Datagram, Tuple
from netlab.model import Address
from netlab.wire import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP

PROTOCOLS = {
    IPPROTO_ICMP: "icmp",
    IPPROTO_TCP: "tcp",
    IPPROTO_UDP: "udp",
    IPPROTO_ICMPV6: "icmpv6",
    IPPROTO_SCTP: "sctp",
}
"""IANA's protocol numbers, those that conntrack knows."""

# RFC 792, RFC 1812 section 5.2.7.1; RFC 4443. By type, and by type and code where there are several worth a name.
_ICMP = {
    (3, 0): "net unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 13): "administratively prohibited",
    (11, 0): "time to live exceeded",
    (11, 1): "fragment reassembly time exceeded",
    (12, 0): "parameter problem",
}
_ICMPV6 = {
    (1, 0): "no route to destination",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "fragment reassembly time exceeded",
    (4, 0): "parameter problem",
}


def endpoint(address: Address, port: int) -> str:
    """An address and its port as one word: 10.0.0.2:80, [fd00::2]:80; without a port, 0, the address alone."""
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def protocol(number: int) -> str:
    """The name of an IP protocol: tcp, icmpv6, "protocol 47"."""
    return PROTOCOLS.get(number, f"protocol {number}")


def kind(datagram: Datagram) -> str:
    """What it is in a few words: "UDP", "ICMP port unreachable", "ICMP type 8 code 0"."""
    name = protocol(datagram.header.proto).replace("icmpv6", "ICMPv6")
    name = name if name == "ICMPv6" else name.upper()
    if datagram.icmp_type is None or datagram.icmp_code is None:
        return name
    known = _ICMP if datagram.header.proto == IPPROTO_ICMP else _ICMPV6
    message = (datagram.icmp_type, datagram.icmp_code)
    return f"{name} {known.get(message, f'type {message[0]} code {message[1]}')}"


def ends(header: Tuple) -> str:
    """Source and destination: "10.0.0.2:40000 > 10.0.0.3:53", without ports where there are none."""
    return f"{endpoint(header.src, header.sport)} > {endpoint(header.dst, header.dport)}"


def describe(datagram: Datagram) -> str:
    """All of it in a line: "10.0.1.2 > 10.0.0.2 ICMP port unreachable len 34, about udp 10.0.0.2:40000 > …"."""
    about = f", about {protocol(datagram.about.proto)} {ends(datagram.about)}" if datagram.about else ""
    return f"{ends(datagram.header)} {kind(datagram)} len {datagram.payload_bytes}{about}"
