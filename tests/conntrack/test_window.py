"""Conntrack's window tracking against hand-written packets.

The client's window is small, unless a test says otherwise. Numbers are relative to the initial ones, CLIENT and SERVER.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from story import FLOW, packet, segment

from netlab.conntrack.agreement import disagreements
from netlab.conntrack.kernels import SINCE_6_1, UNTIL_6_0, Rules, rules
from netlab.conntrack.tracker import follow
from netlab.conntrack.values import ANEW, Check, Checked, CheckName, CtDirection, CtOutcome, Failure
from netlab.record.events import ACK, FIN, PSH, RST, SYN, ConntrackEvent, EntryChange, InvalidReason, Packet, Tuple
from netlab.record.flow import Leg

CLIENT, SERVER = 1000, 5000
NEW, OLD = rules("6.18.44"), rules("5.10.0-30-amd64")
LIBERAL = replace(NEW, be_liberal=True)
STRICT = replace(NEW, loose=False)
ANY_RST = replace(NEW, ignore_invalid_rst=True)
MASK = 0xFFFFFFFF


def followed(
    packets: Iterable[Packet], kernel: Rules, entries: Iterable[ConntrackEvent] = (), *, whole: bool = True
) -> list[Checked]:
    return follow(packets, kernel, translations=FLOW.translations(), entries=entries, whole=whole)


class Wire:
    """Packets as they come to the node, one microsecond after the other; seq and ack are relative."""

    def __init__(self, client: int = CLIENT, server: int = SERVER) -> None:
        self.client, self.server = client, server
        self.packets: list[Packet] = []

    def from_client(self, flags: int, seq: int, ack: int = 0, length: int = 0, window: int = 2304, **more: Any) -> Wire:
        self._add(Leg.CLIENT_TO_VIP, flags, self.client + seq, self.server + ack, length, window, **more)
        return self

    def from_server(self, flags: int, seq: int, ack: int = 5, length: int = 0, window: int = 64, **more: Any) -> Wire:
        self._add(Leg.ENDPOINT_TO_CLIENT, flags, self.server + seq, self.client + ack, length, window, **more)
        return self

    def _add(self, leg: Leg, flags: int, seq: int, ack: int, length: int, window: int, **more: Any) -> None:
        plain = segment(leg, flags, seq & MASK, ack & MASK if flags & ACK else 0, length, window)
        changed = replace(plain, **more)
        self.packets.append(packet(len(self.packets), "client-node", "in", changed))

    def opened(self, **options: Any) -> Wire:
        """A handshake and a request of 4 bytes, acknowledged."""
        self.from_client(SYN, 0, **options)
        self.from_server(SYN | ACK, 0, 1, window=65160, **options)
        self.from_client(ACK, 1, 1)
        self.from_client(PSH | ACK, 1, 1, 4)
        return self.from_server(ACK, 1)

    def checked(self, kernel: Rules = NEW) -> list[Checked]:
        return followed(self.packets, kernel)

    def last(self, kernel: Rules = NEW) -> Checked:
        return self.checked(kernel)[-1]

    def judged(self, kernel: Rules = NEW) -> tuple[CtOutcome, str]:
        return self.last(kernel).outcome, self.last(kernel).log


def outcomes(checked: list[Checked]) -> str:
    """One letter a packet: a, i, I or u."""
    letters = {CtOutcome.ACCEPT: "a", CtOutcome.IGNORE: "i", CtOutcome.INVALID: "I", CtOutcome.UNMODELLED: "u"}
    return "".join(letters[each.outcome] for each in checked)


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


def test_what_the_entry_remembers() -> None:
    state = Wire().opened().from_server(ACK, 1, 5, 1000).last().state_after
    assert state is not None
    assert (state.assured, state.seen_reply) == (True, True)
    reply, original = state.reply, state.original
    assert (reply.td_end, reply.td_maxend, reply.td_maxwin) == (SERVER + 1001, SERVER + 2305, 65160)
    assert (original.td_end, original.td_maxwin, original.td_maxack) == (CLIENT + 5, 2304, SERVER + 1)
    # The SYN,ACK's window is never scaled; the later ones are, and smaller: the edge is a maximum.
    assert original.td_maxend == CLIENT + 1 + 65160


def overshoot(length: int) -> Wire:
    """A full window of 2,304 bytes, of which the last 1,000 are sent twice, and a segment past it."""
    wire = Wire().opened().from_server(ACK, 1, 5, 2304).from_client(ACK, 5, 2305, window=0)
    return wire.from_server(ACK, 2307, 5, length)


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
    assert checked.state_before is not None
    assert checked.state_after is not None
    assert checked.state_after.reply == checked.state_before.reply


# --- beginnings ------------------------------------------------------------------------------------------------------


def test_a_connection_met_in_mid_stream_is_picked_up_and_not_checked() -> None:
    wire = Wire().from_client(ACK, 500, 900, 10).from_server(ACK, 900, 510, 50_000).from_server(ACK, 500_000, 510, 10)
    checked = wire.checked()
    assert outcomes(checked) == "aaa"
    assert checked[0].note == "picked up in mid-stream: its window is not checked from here on"
    strict = wire.checked(STRICT)
    assert outcomes(strict) == "III"
    # tcp_loose=0 is silent.
    assert {each.log for each in strict} == {""}


def test_a_connection_older_than_what_was_seen_is_not_modelled_before_its_entry_ends() -> None:
    wire = Wire().from_client(ACK, 500, 900, 10).from_server(ACK, 900, 510, 50_000).from_client(ACK, 510, 900)
    orig = Tuple(FLOW.client_address, FLOW.client_port, FLOW.vip, FLOW.port, 6)
    reply = Tuple(FLOW.endpoint, FLOW.target_port, FLOW.client_address, FLOW.client_port, 6)
    gone = ConntrackEvent(wire.packets[1].time_ns + 1, "client-node", EntryChange.DESTROY, orig, reply, ())
    checked = followed(wire.packets, NEW, [gone], whole=False)
    assert outcomes(checked) == "uua"
    assert checked[0].note == "unmodelled: the connection is older than what was seen of it"
    assert outcomes(followed(wire.packets, NEW, whole=False)) == "uuu"


def test_what_ctnetlink_tells_of_an_entry_that_a_syn_ended_is_not_about_the_next_one() -> None:
    wire = Wire().opened().from_client(RST, 5).from_client(SYN, 500_000).from_server(SYN | ACK, 900_000, 500_001)
    orig = Tuple(FLOW.client_address, FLOW.client_port, FLOW.vip, FLOW.port, 6)
    reply = Tuple(FLOW.endpoint, FLOW.target_port, FLOW.client_address, FLOW.client_port, 6)
    told_ns = wire.packets[6].time_ns + 1
    gone = ConntrackEvent(told_ns, "client-node", EntryChange.DESTROY, orig, reply, ())
    checked = followed(wire.packets, NEW, [gone])
    assert outcomes(checked) == "aaaaaaaa"
    assert checked[6].note == ANEW
    again = ConntrackEvent(told_ns + 1, "client-node", EntryChange.DESTROY, orig, reply, ())
    assert outcomes(followed(wire.packets, NEW, [gone, again])) == "aaaaaaaI", "the next one is"


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


def test_a_connection_opened_anew_after_its_end() -> None:
    wire = Wire().opened()
    wire.from_server(FIN | ACK, 1).from_client(FIN | ACK, 5, 2).from_server(ACK, 2, 6)
    wire.from_client(SYN, 90_000).from_server(SYN | ACK, 70_000, 90_001).from_client(ACK, 90_001, 70_001)
    checked = wire.checked()
    assert outcomes(checked) == "aaaaaaaaaaa"
    assert checked[8].note == "the same addresses again: the old entry is deleted, and a new one made"
    assert checked[-1].state_after is not None
    assert checked[-1].state_after.tcp_state == "ESTABLISHED"


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


# --- RST -------------------------------------------------------------------------------------------------------------


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


# --- kernels, and what they log --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "forgiving"),
    [
        ("5.10.0-30-amd64", False),
        ("6.0.19", False),
        ("6.1.0", True),
        ("6.18.44-cloud", True),
        ("7.0", True),
        ("?", True),
    ],
)
def test_the_fates_of_a_release(release: str, forgiving: bool) -> None:
    assert rules(release).fates is (SINCE_6_1 if forgiving else UNTIL_6_0)


def test_what_was_tried_decides_before_the_release() -> None:
    assert rules("5.14.0-570.el9", [("forgives-late-segments", True)]).fates is SINCE_6_1
    assert rules("6.18.0", [("forgives-late-segments", False)]).fates is UNTIL_6_0
    assert [rules(release).syn_loses_scale for release in ("5.17", "5.18", "6.7", "6.8")] == [False, True, True, False]
    assert not rules("6.1.170", [("keeps-window-scale", True)]).syn_loses_scale
    assert rules("6.18.0", [("keeps-window-scale", False)]).syn_loses_scale


def reason(about: Packet, text: str) -> InvalidReason:
    return InvalidReason(about.time_ns, "client-node", "eth0", text, about.segment)


def test_agreement_is_silent() -> None:
    checked = overshoot(2302).checked()
    right = [reason(checked[-1].packet, "2304 bytes more than expected")]
    assert disagreements([(each, right if each is checked[-1] else []) for each in checked]) == ()


def test_disagreements_are_told() -> None:
    checked = overshoot(2302).checked()
    wrong = [reason(checked[-1].packet, "42 bytes more than expected")]
    stray = [reason(checked[0].packet, "invalid state")]
    pairs = [(each, wrong if each is checked[-1] else stray if each is checked[0] else []) for each in checked]
    assert [str(each) for each in disagreements(pairs)] == [
        'the kernel logged "invalid state" where the model finds nothing amiss',
        'the kernel logged "42 bytes more than expected" where the model expects "2304 bytes more than expected"',
    ]
    silent = disagreements([(checked[-1], [])])
    assert [str(each) for each in silent] == [
        'the model expects "2304 bytes more than expected", and the kernel logged nothing'
    ]


def test_what_the_model_cannot_see_is_no_disagreement() -> None:
    fine = Wire().opened().last()
    broken = [reason(fine.packet, "bad checksum")]
    lowered = [reason(fine.packet, "packet (index 2, dir 0) response for index 4 lower timeout to 300")]
    again = [reason(fine.packet, "lowered timeout to UNACK")]
    assert disagreements([(fine, broken), (fine, lowered), (fine, again)]) == ()
