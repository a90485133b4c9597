"""Which packet a drop belongs to. Pure.

A PacketDrop has the packet's headers and its namespace, so nothing is guessed from times alone. A packet that is
dropped before it crosses an interface, as by a rule in the output hook, was seen nowhere: its drop has no crossing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from netlab.record.events import Datagram, DatagramPacket, Packet, PacketDrop, Segment

Crossing: TypeAlias = Packet | DatagramPacket

ACCURACY_NS = 50_000
"""A drop may be stamped this much too early: its clock is read apart from that of the packets."""


def attach(drops: Iterable[PacketDrop], crossings: Iterable[Crossing]) -> list[tuple[PacketDrop, Crossing | None]]:
    """Each drop, by time, with the last crossing of its packet before it, in the namespace that dropped it.

    None where there is none, and where two packets cross the same interface alike: which of them was dropped is then
    not known. NAT may have changed the addresses in between, so they are not compared; numbers, flags, length, IP
    identification and timestamps are. Each packet is dropped once.
    """
    waiting: dict[object, list[Crossing]] = defaultdict(list)
    for crossing in crossings:
        packet = crossing.segment if isinstance(crossing, Packet) else crossing.datagram
        waiting[crossing.netns, _identity(packet)].append(crossing)
    found: list[tuple[PacketDrop, Crossing | None]] = []
    for drop in sorted(drops, key=lambda drop: drop.time_ns):
        alike = waiting.get((drop.netns, _identity(drop.segment or drop.datagram)), [])
        before = [crossing for crossing in alike if crossing.time_ns <= drop.time_ns + ACCURACY_NS]
        places = {(crossing.ifname, crossing.direction) for crossing in before}
        if before and len(places) == len(before):
            found.append((drop, max(before, key=lambda crossing: crossing.time_ns)))
            for crossing in before:
                alike.remove(crossing)
        else:
            found.append((drop, None))
    return found


def _identity(packet: Segment | Datagram | None) -> object:
    """What NAT leaves alone of a packet."""
    if isinstance(packet, Segment):
        numbers = packet.seq, packet.ack, packet.flags, packet.payload_bytes
        return (*numbers, packet.window, packet.ip_id, packet.ts_val)
    if packet is None:
        return None
    about = packet.about and (packet.about.proto, packet.about.sport, packet.about.dport)
    return packet.header.proto, packet.payload_bytes, packet.ip_id, packet.icmp_type, packet.icmp_code, about
