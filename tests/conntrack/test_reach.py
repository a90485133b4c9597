"""How far a server reached past its client's window, from the ends' own packets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from netlab.conntrack.reach import Reach, reach
from netlab.record.events import ACK, SYN, Direction, Packet, Segment

CLIENT, SERVER = ip_address("10.0.0.2"), ip_address("10.0.1.2")
EDGE = 5000 + 1000
MASK = 0xFFFFFFFF


def packet(at: int, flags: int, seq: int, ack: int = 0, window: int = 0, length: int = 0) -> Packet:
    segment = Segment(CLIENT, 1, SERVER, 2, seq & MASK, ack & MASK, flags, window, length)
    return Packet(at, "", "", Direction.OUT, segment)


def syn(window: int = 1000, wscale: int | None = None) -> Segment:
    return Segment(CLIENT, 1, SERVER, 2, 999, 0, SYN, window, 0, wscale)


def reached(
    promises: list[Packet], data: list[Packet], own: int | None = None, other: int | None = None, window: int = 1000
) -> Reach | None:
    return reach(syn(window, own), syn(65_535, other), promises, data)


PROMISE = packet(1, ACK, 1000, 5000, 1000)


def test_without_a_promise_there_is_no_edge() -> None:
    assert reached([], [packet(2, ACK, 5000, length=9000)]) is None
    assert reached([packet(1, SYN, 999, 5000, 1000)], [packet(2, ACK, 5000, length=9000)]) is None
    assert reached([packet(1, SYN | ACK, 999, 5000, 1000)], [packet(2, ACK, 5000, length=9000)]) is None
    assert reached([PROMISE], []) is None


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 5000])
def test_what_starts_at_the_edge_or_before_is_not_past_it(length: int) -> None:
    assert reached([PROMISE], [packet(2, ACK, 5000, length=length)]) == Reach(None, length - 1000, 999, EDGE)
    assert reached([PROMISE], [packet(2, ACK, EDGE, length=length)]) == Reach(None, length, 999, EDGE)


@pytest.mark.parametrize(("length", "found"), [(998, False), (999, True), (1000, True)])
def test_what_starts_past_it_tells_if_it_ends_past_what_is_forgiven(length: int, found: bool) -> None:
    data = packet(2, ACK, EDGE + 1, length=length)
    assert reached([PROMISE], [data]) == Reach(data if found else None, length + 1, 999, EDGE)


def test_numbers_wrap() -> None:
    data = packet(2, ACK, 1, length=1000)
    assert reached([packet(1, ACK, 0, -1000, 1000)], [data]) == Reach(data, 1001, 999, 0)
    wrapped = reached([packet(1, ACK, 0, -500, 1000)], [packet(2, ACK, 501, length=1000)])
    assert wrapped is not None
    assert (wrapped.edge, wrapped.beyond_bytes) == (500, 1001)


def test_the_edge_never_moves_back() -> None:
    promises = [PROMISE, packet(2, ACK, 1000, 5000, 999), packet(3, ACK, 1000, 4000, 1000)]
    assert reached(promises, [packet(4, ACK, 5000, length=1)]) == Reach(None, -999, 999, EDGE)
    further = [*promises, packet(4, ACK, 1000, 5001, 1000)]
    assert reached(further, [packet(5, ACK, 5000, length=1)]) == Reach(None, -1000, 999, EDGE + 1)


def test_a_closed_window_is_one_byte_open() -> None:
    assert reached([packet(1, ACK, 0, 5000, 0)], [packet(2, ACK, 5000, length=1)]) == Reach(None, 0, 999, 5001)
    assert reached([packet(1, ACK, 0, 5000, 1)], [packet(2, ACK, 5000, length=1)]) == Reach(None, 0, 999, 5001)


@pytest.mark.parametrize(
    ("own", "other", "shift"), [(2, 0, 2), (2, 7, 2), (0, 2, 0), (2, None, 0), (None, 2, 0), (None, None, 0)]
)
def test_a_window_is_scaled_where_both_offer_it(own: int | None, other: int | None, shift: int) -> None:
    window = 1000 << shift
    found = reached([PROMISE], [packet(2, ACK, 5000, length=1)], own, other)
    assert found == Reach(None, 1 - window, window - 1, 5000 + window)


def test_the_widest_window_forgives_most() -> None:
    data = [packet(3, ACK, EDGE + 1, length=1)]
    assert reached([PROMISE], data, window=3000) == Reach(None, 2, 2999, EDGE)
    assert reached([packet(0, ACK, 0, 1000, 4000), PROMISE], data) == Reach(None, 2, 3999, EDGE)
    # What sticks out was not refused: the window is taken to be that much wider.
    assert reached([PROMISE], [packet(2, ACK, EDGE, length=1), *data]) == Reach(None, 2, 1000, EDGE)
    assert reached([PROMISE], [packet(2, ACK, EDGE - 1, length=1), *data]) == Reach(None, 2, 999, EDGE)
    assert reached([PROMISE], [packet(2, ACK, EDGE + 1, length=2), *data]) == Reach(None, 3, 999, EDGE)


def test_the_farthest_counts_the_first_of_equals() -> None:
    far, near = packet(2, ACK, 5000, length=900), packet(3, ACK, 5000, length=100)
    assert reached([PROMISE], [far, near]) == reached([PROMISE], [near, far]) == Reach(None, -100, 999, EDGE)
    later = packet(4, ACK, 1000, 5000, 1001)
    same = packet(5, ACK, 5000, length=901)
    assert reached([PROMISE, later], [far, same]) == Reach(None, -100, 999, EDGE)


def test_a_promise_counts_from_when_it_leaves() -> None:
    data = [packet(2, ACK, EDGE + 1, length=999)]
    assert reached([packet(3, ACK, 0, 6000, 1000), PROMISE], data) == Reach(data[0], 1000, 999, EDGE)
    assert reached([packet(1, ACK, 0, 6000, 1000), PROMISE], data) == Reach(None, 0, 999, EDGE + 1000)


def test_packets_without_data_reach_nowhere() -> None:
    assert reached([PROMISE], [packet(2, ACK, EDGE + 9000)]) is None
