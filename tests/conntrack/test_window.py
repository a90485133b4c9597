"""The window's arithmetic against hand-written packets; numbers are relative to CLIENT and SERVER."""

from __future__ import annotations

from typing import Any

import pytest
from conntrack_wire import CLIENT, LIBERAL, MASK, OLD, SERVER, Wire, outcomes, overshoot

from netlab.conntrack.kernels import rules
from netlab.conntrack.values import Check, CheckName, CtOutcome, Failure
from netlab.record.events import ACK, SYN


def test_what_the_entry_remembers() -> None:
    state = Wire().opened().from_server(ACK, 1, 5, 1000).last().state_after
    assert state is not None
    assert (state.assured, state.seen_reply) == (True, True)
    reply, original = state.reply, state.original
    assert (reply.td_end, reply.td_maxend, reply.td_maxwin) == (SERVER + 1001, SERVER + 2305, 65160)
    assert (original.td_end, original.td_maxwin, original.td_maxack) == (CLIENT + 5, 2304, SERVER + 1)
    # The SYN,ACK's window is never scaled; the later ones are, and smaller: the edge is a maximum.
    assert original.td_maxend == CLIENT + 1 + 65160


@pytest.mark.parametrize(
    ("length", "new"),
    [
        # td_maxend is 2306: a closed window is one byte open; the kernel counts from 2307.
        (2302, (CtOutcome.IGNORE, "2304 bytes more than expected")),
        (2303, (CtOutcome.INVALID, f"SEQ is over upper bound {SERVER + 2307} (over the window of the receiver)")),
    ],
)
def test_an_overshoot_is_forgiven_up_to_td_maxwin(length: int, new: tuple[CtOutcome, str]) -> None:
    wire = overshoot(length)
    assert wire.judged() == new
    old = (CtOutcome.INVALID, "SEQ is over the upper bound (over the window of the receiver)")
    assert wire.judged(OLD) == old
    checked = wire.last()
    assert (checked.beyond_bytes, checked.forgiven_bytes) == (length + 1, 2303)
    assert checked.checks[0] == Check(CheckName.SEQ_UPPER, SERVER + 2307, SERVER + 2306, -1)
    assert [check.holds for check in checked.checks] == [False, True, True, True]


def test_a_forgiven_overshoot_counts_as_sent_and_its_ack_is_believed() -> None:
    wire = overshoot(1000).from_client(ACK, 5, 3307)
    assert outcomes(wire.checked())[-2:] == "ia"
    assert outcomes(wire.checked(OLD))[-2:] == "II"
    assert wire.judged(OLD)[1] == "ACK is over the upper bound (ACKed data not seen yet)"


def test_what_starts_inside_the_window_is_taken_whole_and_widens_it() -> None:
    # A super-packet of GSO: 5,000 bytes into a window of 2,304.
    wire = Wire().opened().from_server(ACK, 1, 5, 5000)
    checked = wire.last()
    assert (checked.outcome, checked.beyond_bytes) == (CtOutcome.ACCEPT, 2696)
    assert checked.state_after is not None
    assert checked.state_after.original.td_maxwin == 2304 + 2696
    # What comes past the edge then is forgiven that much more.
    wire.from_server(ACK, 5001, 5, 2000)
    assert wire.judged() == (CtOutcome.IGNORE, "4697 bytes more than expected")


def test_numbers_wrap_around() -> None:
    wire = Wire(client=MASK - 2, server=MASK - 1500).opened()
    wire.from_server(ACK, 1, 5, 2304).from_client(ACK, 5, 2305, window=0).from_server(ACK, 2307, 5, 2303)
    assert outcomes(wire.checked()) == "aaaaaaaI"
    assert wire.judged()[1] == f"SEQ is over upper bound {2306 - 1500} (over the window of the receiver)"


def test_windows_are_scaled_where_both_offer_it() -> None:
    def edge(**options: Any) -> int:
        wire = Wire().from_client(SYN, 0, wscale=7).from_server(SYN | ACK, 0, 1, **options)
        checked = wire.from_client(ACK, 1, 1, window=18).last()
        assert checked.state_after is not None
        return checked.state_after.reply.td_maxend - SERVER

    assert edge(wscale=7) == 1 + 18 * 128
    assert edge(wscale=None) == 1 + 18


def test_a_scale_beyond_14_is_14() -> None:
    state = Wire().from_client(SYN, 0, wscale=15).last().state_after
    assert state is not None
    assert state.original.td_scale == 14


def test_a_second_syn_loses_the_scale_on_some_kernels() -> None:
    wire = Wire().from_client(SYN, 0, wscale=7).from_client(SYN, 50_000, wscale=7)
    wire.from_server(SYN | ACK, 0, 50_001, wscale=7).from_client(ACK, 50_001, 1, window=18)
    # The client allows 2,304 bytes; scaled by 0 it seems to allow 18, and the largest window stays the SYN's.
    wire.from_server(ACK, 1, 50_001, 1448).from_server(ACK, 1449, 50_001, 3000)
    assert outcomes(wire.checked(rules("6.8.0"))) == "aaaaaa"
    assert outcomes(wire.checked(rules("6.1.0"))) == "aaaaaI"
    assert wire.judged(rules("6.1.0"))[1].startswith(f"SEQ is over upper bound {SERVER + 20} ")


def test_a_late_retransmission() -> None:
    wire = Wire().opened()
    for at in range(1, 11521, 2304):
        wire.from_server(ACK, at, 5, 2304).from_client(ACK, 5, at + 2304)
    wire.from_server(ACK, 1, 5, 2304)
    text = f"SEQ is under lower bound {SERVER + 11521 - 2304 - 1} (already ACKed data retransmitted)"
    assert wire.judged() == (CtOutcome.IGNORE, text)
    old = "SEQ is under the lower bound (already ACKed data retransmitted)"
    assert wire.judged(OLD) == (CtOutcome.INVALID, old)
    assert wire.last().failure is Failure.SEQ_UNDER


def test_acks_that_take_another_way() -> None:
    """The client's route moves to another node: this one sees the server's data, and the edge stands still."""
    wire = Wire().opened().from_server(ACK, 1, 5, 2304)
    wire.from_server(ACK, 2305, 5, 1448).from_server(ACK, 3753, 5, 1448).from_server(ACK, 5201, 5, 1448)
    # The first starts at the edge, and is taken; what sticks out of the window is forgiven to the next.
    assert outcomes(wire.checked())[-3:] == "aiI"
    assert wire.judged()[1] == f"SEQ is over upper bound {SERVER + 2306} (over the window of the receiver)"


def test_an_ack_of_what_was_never_sent() -> None:
    wire = Wire().opened().from_client(ACK, 5, 500)
    assert wire.judged() == (CtOutcome.INVALID, f"ACK is over upper bound {SERVER + 2} (ACKed data not seen yet)")


def test_an_ack_that_is_far_too_old() -> None:
    wire = Wire().opened(wscale=7)
    for at in range(1, 80_001, 2000):
        wire.from_server(ACK, at, 5, 2000).from_client(ACK, 5, at + 2000)
    wire.from_client(ACK, 5, 1)
    # The largest window the client offered is larger than MAXACKWINCONST.
    bound = SERVER + 80_001 - 2304 * 128 - 1
    assert wire.judged() == (CtOutcome.ACCEPT, "")
    wire = Wire().opened()
    for at in range(1, 80_001, 2000):
        wire.from_server(ACK, at, 5, 2000).from_client(ACK, 5, at + 2000)
    wire.from_client(ACK, 5, 1)
    bound = SERVER + 80_001 - 66_000 - 1
    assert wire.judged() == (CtOutcome.IGNORE, f"ignored ACK under lower bound {bound} (possible overly delayed)")
    assert wire.judged(OLD)[0] is CtOutcome.INVALID


def test_selective_acknowledgements_move_the_edge() -> None:
    wire = Wire().opened(sack_permitted=True).from_server(ACK, 1, 5, 768).from_server(ACK, 769, 5, 768)
    wire.from_client(ACK, 5, 1, sack_edge=SERVER + 1537)
    state = wire.last().state_after
    assert state is not None
    assert (state.reply.td_maxend, state.original.td_maxwin) == (SERVER + 1537 + 2304, 2304 + 1536)
    # One that says more than was sent is as bad as an ack that does.
    wire.from_client(ACK, 5, 1, sack_edge=SERVER + 9999)
    assert wire.judged()[1] == f"ACK is over upper bound {SERVER + 1538} (ACKed data not seen yet)"


def test_selective_acknowledgements_without_permission_are_not_read() -> None:
    wire = Wire().opened().from_client(ACK, 5, 1, sack_edge=SERVER + 9999)
    assert wire.judged() == (CtOutcome.ACCEPT, "")


def test_retransmissions_are_counted() -> None:
    wire = Wire().opened().from_server(ACK, 1, 5, 768)
    for _ in range(3):
        wire.from_server(ACK, 1, 5, 768)
    state = wire.last().state_after
    assert state is not None
    assert state.retransmissions == 3
    state = wire.from_client(ACK, 5, 769).last().state_after
    assert state is not None
    assert state.retransmissions == 0


def test_a_liberal_conntrack_lets_pass_and_learns_nothing() -> None:
    wire = overshoot(5000)
    checked = wire.last(LIBERAL)
    assert (checked.outcome, checked.log, checked.failure) == (CtOutcome.ACCEPT, "", Failure.SEQ_OVER)
    assert checked.note == "out of the window, and let pass: conntrack is liberal here"
    assert [each.note for each in overshoot(1000).checked(LIBERAL)[1:-1]] == [""] * 6
    assert checked.state_before is not None
    assert checked.state_after is not None
    assert checked.state_after.reply == checked.state_before.reply
