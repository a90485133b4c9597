"""A packet sent only to be seen: on the client's interface, on the node's, and in conntrack's log.

It is a TCP header without flags and with a wrong checksum, from the client to the Service: conntrack finds it INVALID
on every kernel, and no socket answers it.
"""

from __future__ import annotations

import socket
import struct

from netlab.model import Address
from netlab.observe import Namespaces
from netlab.record.flow import CANARY_PORT

_HEADER_WORDS = 5 << 4


def send_canary(namespaces: Namespaces, netns: str, vip: Address, port: int, seq: int) -> None:
    """Send one canary with that sequence number from the namespace to the Service; OSError if it has no route."""
    family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
    header = struct.pack("!HHIIBBHHH", CANARY_PORT, port, seq, 0, _HEADER_WORDS, 0, 0, 0, 0)
    with namespaces.socket(netns, family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(header, (str(vip), 0))
