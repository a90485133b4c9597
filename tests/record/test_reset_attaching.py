"""Which RST on the wire the kernel told of, and where nobody can know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from netlab.record.events import ACK, RST, SYN, Direction, Packet, ResetKind, Segment, TcpReset, Tuple
from netlab.record.resets import attach

CLIENT, SERVER = ip_address("10.0.0.2"), ip_address("10.0.1.2")
DATA = Segment(SERVER, 80, CLIENT, 40000, 9000, 500, ACK, 64, 100)
"""What reached a client that has no socket for it; the RST has its ack as its number."""
ANSWER = Segment(CLIENT, 40000, SERVER, 80, 500, 0, RST, 0, 0)
SYN_SEEN = Segment(CLIENT, 40000, SERVER, 80, 700, 0, SYN, 64, 0)
REFUSAL = Segment(SERVER, 80, CLIENT, 40000, 0, 701, RST | ACK, 0, 0)
OWN = Tuple(SERVER, 80, CLIENT, 40000, 6)


def crossing(at_us: int, segment: Segment, direction: Direction, netns: str) -> Packet:
    return Packet(at_us * 1000, netns, "eth0", direction, segment)


def at_us(reset: TcpReset, *packets: Packet) -> int | None:
    """When the RST crossed that is attached."""
    ((_, found),) = attach([reset], packets)
    return found.time_ns // 1000 if found else None


def sent(at_us: int, answered: Segment | None, netns: str = "client", socket: Tuple | None = None) -> TcpReset:
    return TcpReset(at_us * 1000, netns, ResetKind.SENT, "NO_SOCKET", socket, "", answered)


def accepted(at_us: int, rcv_nxt: int | None) -> TcpReset:
    return TcpReset(at_us * 1000, "server", ResetKind.ACCEPTED, "", OWN, "ESTABLISHED", None, rcv_nxt)


@pytest.mark.parametrize(("answered", "rst", "netns"), [(DATA, ANSWER, "client"), (SYN_SEEN, REFUSAL, "server")])
def test_the_answer_that_leaves_next(answered: Segment, rst: Segment, netns: str) -> None:
    reset = sent(100, answered, netns)
    first, second = (crossing(at, rst, Direction.OUT, netns) for at in (110, 120))
    assert at_us(reset, second, first) == 110
    assert at_us(reset, replace(first, time_ns=20_000)) is None  # it left before
    assert at_us(reset, replace(first, netns="node")) is None
    assert at_us(reset, replace(first, direction=Direction.IN)) is None
    assert at_us(reset, crossing(110, replace(rst, seq=rst.seq + 1), Direction.OUT, netns)) is None
    assert at_us(reset, crossing(110, replace(rst, dport=1), Direction.OUT, netns)) is None
    assert at_us(reset, crossing(200_000, rst, Direction.OUT, netns)) is None


def test_each_rst_is_sent_once() -> None:
    rsts = [crossing(at, ANSWER, Direction.OUT, "client") for at in (110, 210)]
    found = attach([sent(200, DATA), sent(100, DATA)], rsts)
    assert [packet and packet.time_ns // 1000 for _, packet in found] == [110, 210]


def test_a_closes_own_left_just_before_it_is_told() -> None:
    rst = replace(REFUSAL, seq=9100, ack=500)
    reset = sent(100, None, "server", OWN)
    assert at_us(reset, *(crossing(at, rst, Direction.OUT, "server") for at in (10, 95, 300))) == 95
    assert at_us(replace(reset, socket=None), crossing(95, rst, Direction.OUT, "server")) is None


def test_the_rst_that_has_rcv_nxt_is_the_accepted_one() -> None:
    wrong = replace(ANSWER, seq=501)
    packets = [crossing(at, rst, Direction.IN, "server") for at, rst in ((80, ANSWER), (90, ANSWER), (95, wrong))]
    assert at_us(accepted(100, 500), *packets) == 90
    assert at_us(accepted(100, 502), *packets) is None
    assert at_us(accepted(20, 500), *packets) is None


def test_without_rcv_nxt_only_a_single_one() -> None:
    one, other = (crossing(at, ANSWER, Direction.IN, "server") for at in (80, 90))
    assert at_us(accepted(100, None), one) == 80
    assert at_us(accepted(100, None), one, other) is None
