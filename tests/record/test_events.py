"""Values of what was seen, the bytes they are read from, and the events of one flow found by where they were."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

import pytest
import story
from frames import CLIENT, CLIENT6, SERVER, SERVER6, icmp, ipv4, ipv6, segment, tcp, udp

from netlab.record.events import ACK, FIN, PSH, SYN, Datagram, Direction, Segment, Tuple, flag_names, seq_diff
from netlab.record.flow import FlowEvents, Leg
from netlab.record.wire import decode_datagram, decode_frame, decode_ip, encode_tcp, internet_checksum


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [(5, 3, 2), (3, 5, -2), (2, 2**32 - 3, 5), (2**32 - 3, 2, -5), (2**31 - 1, 0, 2**31 - 1), (2**31, 0, -(2**31))],
)
def test_sequence_numbers_wrap(a: int, b: int, difference: int) -> None:
    assert seq_diff(a, b) == difference


def test_flags_have_their_names_in_order() -> None:
    assert flag_names(SYN | ACK) == ("SYN", "ACK")
    assert flag_names(0) == ()


def test_syn_and_fin_take_a_sequence_number_and_the_end_wraps() -> None:
    assert segment(ACK, 10).end == 17
    assert segment(SYN, 0, 7).end == 8
    assert segment(FIN | ACK, 10).end == 18
    assert Segment(CLIENT, 1, SERVER, 2, 2**32 - 1, 0, ACK, 0, 3).end == 2


def test_an_ipv4_segment_is_read() -> None:
    assert decode_ip(ipv4(tcp(PSH | ACK, payload=b"hello"))) == segment(PSH | ACK, 5)


def test_ip_options_are_passed_over() -> None:
    assert decode_ip(ipv4(tcp(ACK), options=b"\1\1\1\0")) == segment(ACK, 0)


def test_an_ipv6_segment_is_read() -> None:
    read = decode_ip(ipv6(tcp(ACK, payload=b"abc")))
    assert read == Segment(CLIENT6, 40000, SERVER6, 80, 7, 9, ACK, 512, 3, data_offset=5)
    assert isinstance(read.src, IPv6Address)


@pytest.mark.parametrize(
    ("options", "wscale"),
    [
        (b"\2\4\5\xb4\1\3\3\7", 7),
        (b"\1\1\1\3\3\x0a\0\0", 10),
        (b"\2\4\5\xb4", None),
        (b"\0\3\3\7", None),  # after the end of the options
        (b"\x1e\0\3\3\7\0\0\0", None),  # an option of no length
        (b"\1\1\3\3", None),  # cut off
        (b"\1\1\1\3", None),
    ],
)
def test_a_syn_tells_its_window_scale(options: bytes, wscale: int | None) -> None:
    assert decode_ip(ipv4(tcp(SYN, options))) == segment(SYN, 0, wscale, options)


def test_only_a_syn_has_a_window_scale() -> None:
    assert decode_ip(ipv4(tcp(ACK, b"\3\3\7\0"))) == segment(ACK, 0, None, b"\3\3\7\0")


TIMESTAMP = b"\x08\x0a\0\0\0\7\0\0\0\x09"


@pytest.mark.parametrize(
    ("options", "ts_val", "ts_ecr"),
    [
        (b"\1\1" + TIMESTAMP, 7, 9),
        (TIMESTAMP + b"\1\1", 7, 9),
        (b"\1\1" + TIMESTAMP + b"\1\1\1\1", 7, 9),
        (b"\0\0" + TIMESTAMP, None, None),  # after the end of the options
        (b"\1\1\1\1\1\1\1\1\1\1\x08\x0a", None, None),  # cut off
    ],
)
def test_timestamps_are_read(options: bytes, ts_val: int | None, ts_ecr: int | None) -> None:
    read = decode_ip(ipv4(tcp(ACK, options)))
    assert read == replace(segment(ACK, 0, None, options), ts_val=ts_val, ts_ecr=ts_ecr)


SACK = b"\5\x12" + bytes.fromhex("fffffff0 00000010 ffffffe0 ffffffe8")


@pytest.mark.parametrize(
    ("options", "edge"),
    [
        (b"\1\1" + TIMESTAMP + b"\1\1" + SACK, 0x10),  # the higher one has wrapped
        (b"\1\1" + SACK[:10], None),  # cut off after the first block: the kernel doesn't read half an option
        (b"\1\1\5\x0a" + SACK[2:10], 0x10),
        (b"\1\1\5\x0a" + SACK[2:10] + b"\1\1\5\x0a\0\0\0\0\0\1\0\0", 0x10),  # only the first counts
        (b"\5\4\0\0\5\x0a" + SACK[2:10] + b"\1\1", 0x10),  # of a length that it can have
        (b"\1\1\5\x0a\0\0\0\0\0\0\0\7", None),  # before the ack
    ],
)
def test_the_highest_edge_of_the_selective_acknowledgements_is_read(options: bytes, edge: int | None) -> None:
    read = decode_ip(ipv4(tcp(ACK, options)))
    assert read is not None
    assert read.sack_edge == edge


def test_only_a_syn_permits_selective_acknowledgements() -> None:
    assert decode_ip(ipv4(tcp(SYN, b"\4\2\0\0"))) == replace(segment(SYN, 0, None, b"\4\2\0\0"), sack_permitted=True)
    assert decode_ip(ipv4(tcp(ACK, b"\4\2\0\0"))) == segment(ACK, 0, None, b"\4\2\0\0")


def test_a_frame_that_is_cut_off_after_the_headers_keeps_its_length() -> None:
    frame = b"\0" * 12 + b"\x08\x00" + ipv4(tcp(ACK, payload=b"x" * 1000))
    assert decode_frame(frame[:54]) == segment(ACK, 1000)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x60",
        b"\x05" * 60,
        ipv4(tcp(ACK), protocol=17),
        ipv4(tcp(ACK), fragment=1),
        ipv4(tcp(ACK))[:39],
        ipv6(tcp(ACK), next_header=44),
        ipv6(tcp(ACK))[:59],
    ],
)
def test_what_is_no_whole_tcp_header_is_nothing(packet: bytes) -> None:
    assert decode_ip(packet) is None


TO_DNS = Tuple(CLIENT, 40000, SERVER, 53, 17)


def test_a_datagram_is_read() -> None:
    assert decode_datagram(ipv4(udp(b"hello"), protocol=17)) == Datagram(TO_DNS, 13, 1)
    read = decode_datagram(ipv6(udp(b"hello"), next_header=17))
    assert read == Datagram(Tuple(CLIENT6, 40000, SERVER6, 53, 17), 13)


def test_an_icmp_error_has_the_header_that_it_quotes() -> None:
    quoted = ipv4(udp(b"hello"), protocol=17)
    error = Datagram(Tuple(CLIENT, 0, SERVER, 0, 1), 8 + len(quoted), 1, 3, 3, TO_DNS)
    assert decode_datagram(ipv4(icmp(3, 3, quoted), protocol=1)) == error
    # Eight bytes behind the quoted header are all that RFC 792 asks for.
    assert decode_datagram(ipv4(icmp(11, 0, quoted[:28]), protocol=1)) == replace(
        error, payload_bytes=36, icmp_type=11, icmp_code=0
    )
    quoted6 = ipv6(tcp(SYN))
    assert decode_datagram(ipv6(icmp(1, 4, quoted6), next_header=58)) == Datagram(
        Tuple(CLIENT6, 0, SERVER6, 0, 58), 8 + len(quoted6), 0, 1, 4, Tuple(CLIENT6, 40000, SERVER6, 80, 6)
    )


def test_an_icmp_message_that_is_no_error_quotes_nothing() -> None:
    packet = ipv4(icmp(8, 0, ipv4(udp(), protocol=17)), protocol=1)
    assert decode_datagram(packet) == Datagram(Tuple(CLIENT, 0, SERVER, 0, 1), 36, 1, 8, 0)


def test_what_an_error_quotes_in_part_is_left_out() -> None:
    read = decode_datagram(ipv4(icmp(3, 3, ipv4(udp(), protocol=17)[:20]), protocol=1))
    assert read == Datagram(Tuple(CLIENT, 0, SERVER, 0, 1), 28, 1, 3, 3)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x60" * 39,
        ipv4(tcp(ACK)),
        ipv4(udp(b"hello"), protocol=17, fragment=1),
        ipv4(udp(), protocol=17)[:23],
        ipv4(icmp(3, 3), protocol=1)[:27],
    ],
)
def test_what_is_tcp_or_not_whole_is_no_datagram(packet: bytes) -> None:
    assert decode_datagram(packet) is None


def test_the_same_segment_is_known_on_both_sides_of_nat() -> None:
    reply = story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 5001, 1001, 100)
    assert reply.same_data(story.segment(Leg.VIP_TO_CLIENT, ACK, 5001, 1001, 100))
    assert not reply.same_data(story.segment(Leg.VIP_TO_CLIENT, ACK, 5001, 1002, 100))
    assert not reply.same_data(story.segment(Leg.VIP_TO_CLIENT, ACK, 5001, 1001, 101))


def test_events_are_found_by_where_they_were_and_in_time_order() -> None:
    named = story.reset()
    events = FlowEvents(story.FLOW, reversed(named.values()))
    assert events.packets("server", Direction.OUT, Leg.ENDPOINT_TO_CLIENT) == [
        named["syn,ack"],
        named["fill"],
        named["burst"],
        named["reply"],
    ]
    assert events.packets("server", Direction.IN, Leg.ENDPOINT_TO_CLIENT) == []
    assert events.reasons("client-node", Leg.ENDPOINT_TO_CLIENT) == [named["invalid"]]
    assert events.reasons("server-node", Leg.ENDPOINT_TO_CLIENT) == []
    assert events.sockets == [named["stale window"], named["server reset"], named["client reset"]]
    assert events.last_ns == named["canary after, reason"].time_ns


def test_another_connections_packets_are_left_out() -> None:
    other = Segment(CLIENT, 40001, ip_address("192.168.0.2"), 80, 1, 0, SYN, 512, 0, 7)
    events = FlowEvents(story.FLOW, [story.packet(1, "client", "out", other)])
    assert events.packets("client", Direction.OUT, Leg.CLIENT_TO_VIP) == []
    assert events.syn() is None


@pytest.mark.parametrize(("wrap", "protocol"), [(ipv4, 4), (ipv6, 6)])
def test_an_encoded_segment_is_read_back(wrap: Callable[[bytes], bytes], protocol: int) -> None:
    addresses = ("10.0.0.2", "192.168.0.2") if protocol == 4 else ("fd00::2", "fd00:ffff::2")
    src, dst = map(ip_address, addresses)
    made = Segment(src, 40000, dst, 80, 4_000_000_000, 7, PSH | ACK, 512, 5, data_offset=5)
    data = encode_tcp(made, b"hello")
    read = decode_ip(wrap(data))
    assert read is not None
    assert replace(read, src=src, dst=dst, sport=40000, dport=80, ip_id=0) == made
    assert data[20:] == b"hello"
    pseudo = src.packed + dst.packed + struct.pack("!IHH", len(data), 0, 6)
    assert internet_checksum(pseudo + data) == 0


def test_the_checksum_of_rfc_1071s_example() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert internet_checksum(b"\1") == 0xFEFF
