"""The connections that a flow has had, one after another."""

from __future__ import annotations

import pytest
from hops import Hops
from story import FLOW, START_NS

from netlab.analysis.incarnations import Incarnation, incarnations
from netlab.analysis.timeline import build
from netlab.record.events import ACK, FIN, RST, SYN


def found(hops: Hops) -> list[Incarnation]:
    return incarnations(FLOW, build(hops.recording()).of(FLOW))


def numbers(hops: Hops) -> list[list[int]]:
    """The packets of each."""
    return [[path.number for path in each.paths] for each in found(hops)]


def test_there_is_always_one() -> None:
    assert numbers(Hops()) == [[]]
    assert numbers(Hops().opened()) == [[1, 2, 3, 4, 5]]


def test_a_syn_with_a_number_of_its_own_begins_the_next() -> None:
    hops = Hops().opened()
    hops.to_server(1000, SYN, 500_000)
    hops.to_client(1100, ACK, 1, 5)
    hops.to_server(2000, SYN, 600_000)
    assert numbers(hops) == [[1, 2, 3, 4, 5], [6, 7], [8]]
    assert [each.earlier for each in found(hops)] == [0, 5, 7]
    assert [each.until_ns and each.until_ns - START_NS for each in found(hops)] == [1_000_000, 2_000_000, None]


def test_a_syn_that_is_sent_again_does_not() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_server(1000, SYN, 0)
    assert numbers(hops) == [[1, 2]]


def test_what_comes_before_the_first_is_an_older_ones() -> None:
    hops = Hops()
    hops.to_client(0, FIN | ACK, 900)
    hops.to_server(100, SYN, 0)
    assert numbers(hops) == [[1], [2]]


@pytest.mark.parametrize("flags", [SYN | ACK, ACK, RST])
def test_nothing_else_begins_one(flags: int) -> None:
    hops = Hops().opened()
    hops.to_server(1000, flags, 500_000)
    hops.to_client(2000, SYN, 500_000)
    assert numbers(hops) == [[1, 2, 3, 4, 5, 6, 7]]


def test_a_moment_is_of_the_connection_that_has_begun_and_has_not_been_followed() -> None:
    hops = Hops().opened()
    hops.to_server(1000, SYN, 500_000)
    first, second = found(hops)
    moments = [START_NS + at_ns for at_ns in (-1, 0, 999_999, 1_000_000, 10**12)]
    assert [first.has(moment) for moment in moments] == [True, True, True, False, False]
    assert [second.has(moment) for moment in moments] == [False, False, False, True, True]


def refusals(hops: Hops) -> list[int]:
    return [path.number for path in found(hops)[-1].refusals()]


def refusing(*, flags: int = RST, at_us: int = 200) -> Hops:
    """The client's SYN, #1; an older answer to it, #2; the client's RST; and a SYN,ACK that comes at 1,040 us."""
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, ACK, 700, -300)
    hops.to_server(at_us, flags, -300, window=0)
    hops.to_client(1000, SYN | ACK, 0, 1)
    return hops


def test_a_rst_in_the_handshake_refuses_what_an_older_connection_answered() -> None:
    assert refusals(refusing()) == [3]
    assert refusals(refusing(at_us=1039)) == [4]


def test_once_the_handshake_is_done_it_ends_the_connection() -> None:
    assert refusals(refusing(at_us=1040)) == []


def test_one_with_ack_is_no_refusal() -> None:
    assert refusals(refusing(flags=RST | ACK)) == []


def test_without_a_syn_there_is_nothing_to_refuse() -> None:
    hops = Hops()
    hops.to_client(100, ACK, 700, -300)
    hops.to_server(200, RST, -300, window=0)
    assert refusals(hops) == []
    assert refusals(Hops()) == []


def test_an_answer_to_another_syn_or_one_that_is_lost_ends_no_handshake() -> None:
    for ack, hops_seen in ((900, 5), (1, 3)):
        hops = Hops()
        hops.to_server(0, SYN, 0)
        hops.to_client(100, SYN | ACK, 0, ack, hops=hops_seen)
        hops.to_server(300, RST, 1, window=0)
        assert refusals(hops) == [3]


def test_only_a_syn_ack_ends_it() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, ACK, 700, 1)
    hops.to_server(300, RST, 1, window=0)
    assert refusals(hops) == [3]


def test_a_servers_rst_refuses_nothing() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, RST, 1, window=0)
    assert refusals(hops) == []
