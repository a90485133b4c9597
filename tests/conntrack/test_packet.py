"""What becomes of one packet and its entry: beginnings, ends, resets."""

from __future__ import annotations

from conntrack_wire import ANY_RST, CLIENT, LIBERAL, OLD, SERVER, STRICT, Wire, outcomes

from netlab.conntrack.kernels import rules
from netlab.conntrack.values import CtDirection, CtOutcome
from netlab.record.events import ACK, FIN, RST, SYN


def test_a_connection_from_its_syn_to_its_last_ack() -> None:
    wire = Wire().opened()
    wire.from_server(ACK, 1, 5, 2304).from_client(ACK, 5, 2305)
    wire.from_server(FIN | ACK, 2305).from_client(FIN | ACK, 5, 2306).from_server(ACK, 2306, 6)
    checked = wire.checked()
    assert outcomes(checked) == "aaaaaaaaaa"
    states = [each.state_after.tcp_state for each in checked if each.state_after]
    assert states == [
        *("SYN_SENT", "SYN_RECV", "ESTABLISHED", "ESTABLISHED", "ESTABLISHED"),
        *("ESTABLISHED", "ESTABLISHED", "FIN_WAIT", "LAST_ACK", "TIME_WAIT"),
    ]
    directions = [each.direction is CtDirection.REPLY for each in checked]
    assert directions == [False, True, False, False, True, True, False, True, False, True]


def test_a_connection_met_in_mid_stream_is_picked_up_and_not_checked() -> None:
    wire = Wire().from_client(ACK, 500, 900, 10).from_server(ACK, 900, 510, 50_000).from_server(ACK, 500_000, 510, 10)
    checked = wire.checked()
    assert outcomes(checked) == "aaa"
    assert checked[0].note == "picked up in mid-stream: its window is not checked from here on"
    strict = wire.checked(STRICT)
    assert outcomes(strict) == "III"
    # tcp_loose=0 is silent.
    assert {each.log for each in strict} == {""}


def test_a_rst_opens_no_connection() -> None:
    wire = Wire().from_client(RST, 5)
    assert wire.judged() == (CtOutcome.INVALID, "invalid new")
    assert wire.judged(rules("6.1.0")) == (CtOutcome.INVALID, "")


def test_a_syn_again() -> None:
    wire = Wire().from_client(SYN, 0).from_client(SYN, 0).from_server(SYN | ACK, 0, 1).from_server(SYN | ACK, 0, 1)
    wire.from_client(ACK, 1, 1).from_client(SYN, 900)
    assert outcomes(wire.checked()) == "aaaiai"
    assert [each.log for each in wire.checked() if each.log] == [
        "packet (index 1) in dir 1 ignored, state SYN_RECV",
        "packet (index 0) in dir 0 ignored, state ESTABLISHED",
    ]
    assert wire.judged(OLD)[1] == "invalid packet ignored in state ESTABLISHED"


def test_a_syn_that_was_ignored_and_answered_brings_conntrack_into_step() -> None:
    wire = (
        Wire().opened().from_client(SYN, 90_000).from_server(SYN | ACK, 70_000, 90_001).from_client(ACK, 90_001, 70_001)
    )
    checked = wire.checked()
    assert outcomes(checked) == "aaaaaiaa"
    assert checked[-1].state_after is not None
    assert checked[-1].state_after.original.td_end == CLIENT + 90_001


def test_a_simultaneous_open() -> None:
    wire = Wire().from_client(SYN, 0).from_server(SYN, 0, window=1000)
    wire.from_client(SYN | ACK, 0, 1).from_server(SYN | ACK, 0, 1).from_server(ACK, 1, 1)
    checked = wire.checked()
    assert outcomes(checked) == "aaaia"
    states = [each.state_after.tcp_state for each in checked if each.state_after]
    assert states == ["SYN_SENT", "SYN_SENT2", "SYN_RECV", "SYN_RECV", "ESTABLISHED"]


def test_flags_that_make_no_sense() -> None:
    assert Wire().from_client(SYN | FIN, 0).judged() == (CtOutcome.INVALID, "invalid tcp flag combination")
    assert Wire().from_client(0, 0).judged() == (CtOutcome.INVALID, "invalid tcp flag combination")


def test_a_rst_closes_where_its_seq_is_what_was_acknowledged() -> None:
    checked = Wire().opened().from_server(RST, 1).last()
    assert checked.outcome is CtOutcome.ACCEPT
    assert checked.state_after is not None
    assert checked.state_after.tcp_state == "CLOSE"


def test_a_rst_inside_the_window_leaves_the_state_for_a_challenge() -> None:
    wire = Wire().opened().from_server(ACK, 1, 5, 100).from_client(ACK, 5, 101).from_server(RST, 500)
    checked = wire.last()
    assert checked.outcome is CtOutcome.ACCEPT
    assert checked.state_after is not None
    assert checked.state_after.tcp_state == "ESTABLISHED"


def test_a_rst_before_what_was_acknowledged_is_invalid() -> None:
    wire = Wire().opened().from_server(ACK, 1, 5, 100).from_client(ACK, 5, 101).from_server(RST, 50)
    assert wire.judged() == (CtOutcome.INVALID, "invalid rst")
    assert wire.last().note == "its seq is 51 bytes before what the other side has acknowledged"
    assert wire.judged(ANY_RST)[0] is CtOutcome.ACCEPT
    assert wire.judged(LIBERAL)[0] is CtOutcome.INVALID


def test_a_rst_after_a_fin_is_not_checked_since_5_18() -> None:
    wire = Wire().opened().from_server(ACK, 1, 5, 100).from_client(FIN | ACK, 5, 101).from_server(RST, 50)
    assert wire.judged() == (CtOutcome.ACCEPT, "")
    assert wire.judged(OLD) == (CtOutcome.INVALID, "invalid rst")


def test_a_rst_as_the_only_answer_ends_the_entry() -> None:
    checked = Wire().from_client(SYN, 0).from_server(RST | ACK, -SERVER, 1).last()
    assert (checked.outcome, checked.state_after) == (CtOutcome.ACCEPT, None)


def test_a_rst_with_the_number_0_may_answer_a_syn_that_was_let_through() -> None:
    """So it is held against the window, and not against what was acknowledged, where nothing is established yet."""
    wire = Wire(server=5).from_client(SYN, 0).from_server(SYN | ACK, 0, 1).from_client(ACK, 1, 1)
    wire.from_server(ACK, 1, 1, 10).from_client(ACK, 1, 11)
    assert wire.from_server(RST | ACK, -5, 1).judged() == (CtOutcome.INVALID, "invalid rst")
    half = Wire(server=5).from_client(SYN, 0).from_server(SYN | ACK, 0, 1)
    half.packets.append(Wire(server=5).from_client(SYN | ACK, 0, 1).packets[0])
    assert half.from_server(RST | ACK, -5, 1).judged() == (CtOutcome.ACCEPT, "")


def test_only_after_a_syn_that_was_ignored_a_rst_with_its_ack_goes_unchecked() -> None:
    after_ack = Wire().opened().from_client(ACK, 5, 1).from_server(RST | ACK, 900_000, 5)
    assert after_ack.judged()[0] is CtOutcome.INVALID
    after_syn = Wire().opened().from_client(SYN, 4).from_server(RST | ACK, 900_000, 5)
    assert after_syn.judged() == (CtOutcome.ACCEPT, "")
