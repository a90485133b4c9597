"""Bytes at their edges: odd options and data offsets, fragments, extension headers, BIG TCP, other EtherTypes."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from frames import CLIENT6, SERVER6, ipv4, ipv6, segment, tcp, udp

from netlab.record.events import ACK, SYN, Datagram, Segment, Tuple
from netlab.record.wire import decode_datagram, decode_frame, decode_ip

SEGMENT6 = Segment(CLIENT6, 40000, SERVER6, 80, 7, 9, ACK, 512, 3, data_offset=5)
ABC = tcp(ACK, payload=b"abc")
EMPTY = bytes(6)


def read(packet: bytes, ip_bytes: int = 0) -> Segment:
    found = decode_ip(packet, ip_bytes)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (b"\3\3\7\1", {"wscale": 7}),
        (b"\3\2\3\3\7\1\1\1", {"wscale": 7}),
        (b"\3\3\7\3\3\2\1\1", {"wscale": 2}),
        (b"\3\2\1\1", {}),
        (b"\3\4\5\6", {}),
        (b"\4\2\1\1", {"sack_permitted": True}),
        (b"\4\3\1\1", {}),
        (b"\x08\x09" + bytes(7) + b"\1\1\1", {}),
        (b"\x08\x0b" + bytes(9) + b"\1", {}),
        (b"\x08\x0a" + bytes(8) + b"\1\1", {"ts_val": 0, "ts_ecr": 0}),
        (b"\1\1\1\3", {}),
        (b"\3\3\7\x05", {"wscale": 7}),
    ],
)
def test_an_option_counts_only_in_the_length_that_it_has(options: bytes, changes: dict[str, Any]) -> None:
    assert read(ipv4(tcp(SYN, options))) == replace(segment(SYN, 0, None, options), **changes)


@pytest.mark.parametrize(
    ("words", "payload_bytes"), [(0, 23), (4, 7), (5, 3), (6, -1), (15, -37)], ids=lambda value: str(value)
)
def test_a_data_offset_is_read_as_it_is(words: int, payload_bytes: int) -> None:
    header = bytearray(ABC)
    header[12] = words << 4
    found = read(ipv4(bytes(header)))
    assert (found.data_offset, found.payload_bytes) == (words, payload_bytes)


@pytest.mark.parametrize("ethertype", [0x0806, 0x8100, 0x88A8, 0x0000, 0x86DE, 0x0801])
def test_a_frame_of_another_ethertype_is_no_ip_packet(ethertype: int) -> None:
    frame = bytes(12) + struct.pack("!H", ethertype) + ipv4(ABC)
    assert decode_frame(frame) is None


@pytest.mark.parametrize("length", [0, 13, 14, 33])
def test_a_frame_that_is_cut_off_is_nothing(length: int) -> None:
    assert decode_frame((bytes(12) + b"\x08\0" + ipv4(ABC))[:length]) is None


def test_padding_is_no_part_of_a_packet() -> None:
    assert decode_ip(ipv4(ABC) + bytes(6)) == segment(ACK, 3)
    short = bytearray(ipv4(ABC))
    short[2:4] = struct.pack("!H", 39)
    assert decode_ip(bytes(short)) is None, "its TCP header is a byte too short, whatever follows"
    short[2:4] = struct.pack("!H", 40)
    assert decode_ip(bytes(short)) == segment(ACK, 0)


@pytest.mark.parametrize(
    ("fragment", "is_fragment"), [(0x0000, False), (0x4000, False), (0x8000, False), (0x2000, True)]
)
def test_a_first_fragment_is_told(fragment: int, is_fragment: bool) -> None:
    assert decode_ip(ipv4(ABC, fragment=fragment)) == replace(segment(ACK, 3), is_fragment=is_fragment)


@pytest.mark.parametrize("fragment", [0x0001, 0x1000, 0x1FFF, 0x2001])
def test_a_later_fragment_is_nothing(fragment: int) -> None:
    assert decode_ip(ipv4(ABC, fragment=fragment)) is None
    assert decode_datagram(ipv4(udp(b"x" * 20), protocol=17, fragment=fragment)) is None


def extended(kind: int, header: bytes, body: bytes = ABC) -> bytes:
    """An IPv6 packet with one extension header of that kind, whose first byte, the next header's kind, is TCP's."""
    return ipv6(b"\6" + header + body, next_header=kind)


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (0, b"\0" + EMPTY),
        (43, b"\0" + EMPTY),
        (60, b"\1" + EMPTY + bytes(8)),
        (51, b"\1" + EMPTY + bytes(4)),  # the authentication header counts in words, and two less
        (51, b"\4" + EMPTY + bytes(16)),
        (44, b"\0\0\0\0\0\0\7"),  # a fragment that is the whole
        (44, b"\xff\0\0\0\0\0\7"),
    ],
)
def test_extension_headers_are_passed_over(kind: int, header: bytes) -> None:
    assert decode_ip(extended(kind, header)) == SEGMENT6


def test_one_extension_header_follows_another() -> None:
    second = b"\6\0" + EMPTY + ABC
    assert decode_ip(ipv6(b"\x3c\0" + EMPTY + second, next_header=0)) == SEGMENT6
    datagram = ipv6(b"\x11\0" + EMPTY + udp(b"hello"), next_header=60)
    assert decode_datagram(datagram) == Datagram(Tuple(CLIENT6, 40000, SERVER6, 53, 17), 13)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (0x0000, SEGMENT6),
        (0x0006, SEGMENT6),  # reserved bits
        (0x0001, replace(SEGMENT6, is_fragment=True)),
        (0x0008, None),
        (0x0009, None),
        (0xFFF8, None),
    ],
)
def test_an_ipv6_fragment_is_told(field: int, found: Segment | None) -> None:
    assert decode_ip(extended(44, b"\0" + struct.pack("!HI", field, 7))) == found


@pytest.mark.parametrize("length", [40, 41, 47, 48, 67])
def test_extension_headers_that_are_cut_off_are_nothing(length: int) -> None:
    assert decode_ip(extended(0, b"\0" + EMPTY)[:length]) is None


def test_without_a_next_header_there_is_nothing() -> None:
    assert decode_ip(ipv6(ABC, next_header=59)) is None


def test_big_tcp_does_not_say_its_length() -> None:
    packet = bytearray(ipv4(ABC))
    packet[2:4] = b"\0\0"
    assert read(bytes(packet), 200_000).payload_bytes == 200_000 - 40
    assert read(bytes(packet)).payload_bytes == 3, "what is there, where nobody knows"
    frame = bytes(12) + b"\x08\0" + bytes(packet)
    found = decode_frame(frame, 100_014)
    assert found is not None
    assert found.payload_bytes == 100_000 - 40


def test_big_tcp_over_ipv6_has_a_jumbo_option_or_nothing() -> None:
    packet = bytearray(ipv6(ABC))
    packet[4:6] = b"\0\0"
    assert read(bytes(packet), 200_000).payload_bytes == 200_000 - 60
    assert read(bytes(packet)).payload_bytes == 3
    jumbo = bytearray(extended(0, b"\0\xc2\4" + struct.pack("!I", 100_000)))
    assert read(bytes(jumbo)).payload_bytes == 3, "the header says it"
    jumbo[4:6] = b"\0\0"
    assert read(bytes(jumbo), 100_040).payload_bytes == 100_000 - 8 - 20
    assert read(bytes(jumbo)).payload_bytes == 100_000 - 8 - 20
