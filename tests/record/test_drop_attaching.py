"""Which packet a drop belongs to, and where nobody can know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from netlab.record.drops import ACCURACY_NS, Crossing, attach
from netlab.record.events import ACK, Datagram, DatagramPacket, Direction, Packet, PacketDrop, Segment, Tuple

CLIENT, VIP, SERVER = (ip_address(text) for text in ("10.0.0.2", "192.168.0.2", "10.0.1.2"))
SEGMENT = Segment(CLIENT, 40000, VIP, 80, 1000, 5, ACK, 64, 100, ip_id=7)
TRANSLATED = replace(SEGMENT, dst=SERVER, dport=8080)


def crossing(at_us: int, ifname: str = "eth0", segment: Segment = SEGMENT, netns: str = "node") -> Packet:
    return Packet(at_us * 1000, netns, ifname, Direction.IN, segment)


def drop(at_us: int, segment: Segment = TRANSLATED, netns: str = "node") -> PacketDrop:
    return PacketDrop(at_us * 1000, netns, "NETFILTER_DROP", segment=segment)


def times_us(drops: list[PacketDrop], crossings: list[Crossing]) -> list[int | None]:
    """When the crossing was that each drop belongs to."""
    return [found.time_ns // 1000 if found else None for _, found in attach(drops, crossings)]


def test_the_last_crossing_before_the_drop_whatever_nat_did() -> None:
    crossings: list[Crossing] = [crossing(5, "veth1"), crossing(6, "cni0"), crossing(500, "eth1")]
    assert times_us([drop(10)], crossings) == [6]


def test_not_in_another_namespace_nor_another_packet() -> None:
    assert times_us([drop(10)], [crossing(5, netns="client")]) == [None]
    for changed in (
        replace(SEGMENT, seq=1001),
        replace(SEGMENT, ip_id=8),
        replace(SEGMENT, payload_bytes=99),
        replace(SEGMENT, ts_val=1),
        replace(SEGMENT, window=65),
    ):
        assert times_us([drop(10)], [crossing(5, segment=changed)]) == [None]


def test_a_drop_may_be_stamped_a_little_early_but_no_more() -> None:
    late_us = ACCURACY_NS // 1000
    assert times_us([drop(10)], [crossing(10 + late_us)]) == [10 + late_us]
    assert times_us([drop(10)], [crossing(11 + late_us)]) == [None]


def test_of_two_that_are_alike_nobody_knows_which() -> None:
    assert times_us([drop(10)], [crossing(5), crossing(6)]) == [None]


def test_each_of_two_that_are_alike_and_both_dropped() -> None:
    assert times_us([drop(1010), drop(10)], [crossing(5), crossing(1005)]) == [5, 1005]


def test_what_is_dropped_before_it_leaves_was_seen_nowhere() -> None:
    assert times_us([drop(10)], []) == [None]


def test_datagrams_and_errors() -> None:
    about = Tuple(CLIENT, 40000, VIP, 53, 17)
    asked = Datagram(about, 13, 9)
    error = Datagram(Tuple(SERVER, 0, CLIENT, 0, 1), 41, 0, 3, 4, about)
    crossings: list[Crossing] = [
        DatagramPacket(5000, "node", "eth0", Direction.IN, asked),
        DatagramPacket(6000, "node", "eth0", Direction.IN, error),
    ]
    drops = [
        PacketDrop(9000, "node", "NO_SOCKET", datagram=replace(asked, header=replace(about, dst=SERVER, dport=5353))),
        PacketDrop(9001, "node", "NETFILTER_DROP", datagram=error),
        PacketDrop(9002, "node", "NETFILTER_DROP", datagram=replace(error, icmp_code=3)),
    ]
    assert times_us(drops, crossings) == [5, 6, None]
