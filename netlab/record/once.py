"""Each packet once, of those that were seen at many interfaces: what a file holds that other tools analyse. Pure.

Wireshark and tshark tell connections apart by addresses and ports alone, whatever interface or section of the file a
packet is of: the same packet at a second interface is a retransmission to them. What NAT changed is another packet.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

_ETHERNET_BYTES, _VLAN_TAGS, _TAG_BYTES = 14, (0x8100, 0x88A8), 4
_IPV4, _IPV6 = 0x0800, 0x86DD
_CHECKSUM_AT = {6: 16, 17: 6}
"""Where TCP and UDP have theirs, which is filled in on the way, by whoever does it for the card."""

_TOLD_BY_BYTES = 160
"""So much of a packet tells it from others: all headers, and some of what they carry."""

_MOST_KNOWN = 1 << 16


def identity(frame: bytes, wire_bytes: int) -> bytes:
    """What is the same at all interfaces that a packet crosses, but for NAT: frame is its beginning, with Ethernet's
    header, wire_bytes the whole one's length."""
    at, kind = _ETHERNET_BYTES, int.from_bytes(frame[12:14], "big")
    while kind in _VLAN_TAGS:
        kind, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + _TAG_BYTES
    if kind not in (_IPV4, _IPV6) or len(frame) < at + 20:
        return frame[:_TOLD_BY_BYTES]
    packet = bytearray(frame[at : at + _TOLD_BY_BYTES])
    if kind == _IPV4:
        packet[8] = packet[10] = packet[11] = 0  # time to live, and the checksum over it
        header, proto = (packet[0] & 15) * 4, packet[9]
        first = not (packet[6] & 0x1F or packet[7])
    else:
        packet[7] = 0  # hop limit
        header, proto, first = 40, packet[6], True
    checksum = header + _CHECKSUM_AT.get(proto, len(packet))
    if first and checksum + 2 <= len(packet):
        packet[checksum : checksum + 2] = b"\0\0"
    return (wire_bytes - at).to_bytes(4, "big") + packet


@dataclass(slots=True)
class Sightings:
    """How often each packet was seen where; it remembers some 65,000 packets.

    A packet that is sent again is seen again at an interface that has seen it: that tells it from its own passage
    through the next.
    """

    _known: dict[bytes, dict[Hashable, int]] = field(default_factory=dict)

    def add(self, packet: bytes, place: Hashable) -> tuple[int, bool]:
        """Note a packet, by its `identity`, at a place: an interface and a direction. Returns how many like it the
        place has now seen, and whether that is more than any place had."""
        seen = self._known.get(packet)
        if seen is None:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            seen = self._known[packet] = {}
        most = max(seen.values(), default=0)
        seen[place] = count = seen.get(place, 0) + 1
        return count, count > most
