"""Entries found by the packets' headers, as they come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from conntrack_wire import NEW, Wire, followed, outcomes
from story import FLOW

from netlab.conntrack.tracker import Tracker, follow
from netlab.conntrack.values import ANEW
from netlab.record.events import ACK, FIN, RST, SYN, ConntrackEvent, EntryChange, Tuple


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


def test_a_connection_opened_anew_after_its_end() -> None:
    wire = Wire().opened()
    wire.from_server(FIN | ACK, 1).from_client(FIN | ACK, 5, 2).from_server(ACK, 2, 6)
    wire.from_client(SYN, 90_000).from_server(SYN | ACK, 70_000, 90_001).from_client(ACK, 90_001, 70_001)
    checked = wire.checked()
    assert outcomes(checked) == "aaaaaaaaaaa"
    assert checked[8].note == "the same addresses again: the old entry is deleted, and a new one made"
    assert checked[-1].state_after is not None
    assert checked[-1].state_after.tcp_state == "ESTABLISHED"


# --- by which header -------------------------------------------------------------------------------------------------

ORIG, REPLY = next(iter(FLOW.translations().items()))


def event(at_ns: int, change: EntryChange, **more: Any) -> ConntrackEvent:
    return ConntrackEvent(at_ns, "client-node", change, ORIG, REPLY, (), **more)


def test_a_reply_is_found_by_what_nat_made_of_it() -> None:
    wire = Wire().opened()
    assert outcomes(follow(wire.packets, NEW, translations=FLOW.translations())) == "aaaaa"
    assert outcomes(follow(wire.packets, NEW, entries=[event(0, EntryChange.NEW)])) == "aaaaa"
    # Without any translation its answers are another connection's.
    assert outcomes(follow(wire.packets, NEW)) == "aIIIa"


def test_what_ctnetlink_tells_comes_before_what_is_known() -> None:
    wire, other = Wire().opened(), replace(REPLY, dport=41_000)
    told = ConntrackEvent(0, "client-node", EntryChange.NEW, ORIG, other, ())
    assert outcomes(follow(wire.packets, NEW, translations=FLOW.translations(), entries=[told])) == "aIIIa"


def test_entries_of_other_protocols_are_nothing_to_it() -> None:
    wire = Wire().opened()
    orig, reply = replace(ORIG, proto=17), replace(REPLY, proto=17)
    gone = ConntrackEvent(wire.packets[2].time_ns, "client-node", EntryChange.DESTROY, orig, reply, ())
    assert outcomes(followed(wire.packets, NEW, [gone])) == "aaaaa"


def test_an_entry_is_found_from_both_ends() -> None:
    tracker = Tracker(NEW, translations=FLOW.translations())
    assert tracker.entry(ORIG) is None
    for packet in Wire().opened().packets:
        tracker.packet(packet)
    assert tracker.entry(ORIG) is tracker.entry(REPLY) is not None
    assert tracker.entry(replace(ORIG, sport=1)) is None


# --- as ctnetlink tells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("early_ns", "found"), [(-1, "aaaaaaI"), (0, "aaaaaaI"), (1, "aaaaaaa")])
def test_an_entry_is_gone_from_the_moment_it_is_told(early_ns: int, found: str) -> None:
    wire = Wire().opened().from_client(ACK, 5, 1).from_server(FIN | ACK, 1)
    gone = event(wire.packets[6].time_ns + early_ns, EntryChange.DESTROY)
    assert outcomes(followed(wire.packets, NEW, [gone])) == found


def test_entries_end_in_the_order_of_their_times() -> None:
    wire = Wire().from_client(ACK, 5, 1).from_client(ACK, 5, 1).from_client(ACK, 5, 1)
    first, second, third = (packet.time_ns for packet in wire.packets)
    told = [event(third, EntryChange.DESTROY), event(second, EntryChange.DESTROY)]
    notes = [each.note for each in followed(wire.packets, NEW, told)]
    assert len(set(notes)) == 1, "each is picked up as if it were the first"
    assert first < second


def scaled(*told: ConntrackEvent) -> int:
    """By how much the client's last window is shifted."""
    wire = Wire().opened(wscale=2).from_client(ACK, 5, 1, window=1000)
    found = followed(wire.packets, NEW, told)[-1].state_after
    assert found is not None
    assert found.reply.td_scale == (found.original.td_scale and 2)
    return found.original.td_scale


def test_window_scales_are_those_that_ctnetlink_told_last() -> None:
    last_ns = Wire().opened(wscale=2).from_client(ACK, 5, 1).packets[-1].time_ns
    lost: dict[str, Any] = {"tcp_state": "ESTABLISHED", "window_scales": (0, 0)}
    assert scaled() == 2
    assert scaled(event(last_ns, EntryChange.UPDATE, **lost)) == 0
    assert scaled(event(last_ns + 1, EntryChange.UPDATE, **lost)) == 2
    again = event(last_ns, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(2, 2))
    assert scaled(event(last_ns - 1, EntryChange.UPDATE, **lost), again) == 2
    assert scaled(again, event(last_ns - 1, EntryChange.UPDATE, **lost)) == 2, "in the order of their times"
    assert scaled(event(last_ns, EntryChange.NEW, **lost)) == 2
    assert scaled(event(last_ns, EntryChange.UPDATE, **lost | {"tcp_state": "SYN_RECV"})) == 2
    assert scaled(event(last_ns, EntryChange.UPDATE, tcp_state="ESTABLISHED")) == 2


def test_scales_of_an_entry_that_is_not_there_are_passed_over() -> None:
    wire = Wire().opened()
    told = event(0, EntryChange.UPDATE, tcp_state="ESTABLISHED", window_scales=(9, 9))
    checked = followed(wire.packets, NEW, [told])
    assert outcomes(checked) == "aaaaa"
    assert checked[0].state_after is not None
    assert checked[0].state_after.original.td_scale == 0


# --- what is not modelled --------------------------------------------------------------------------------------------


def test_after_a_fragment_nothing_is_modelled_until_the_entry_ends() -> None:
    wire = Wire().opened().from_server(ACK, 1, 5, 1000, is_fragment=True).from_client(ACK, 5, 9000)
    checked = followed(wire.packets, NEW)
    assert outcomes(checked) == "aaaaauu"
    assert checked[-1].note == "unmodelled: a fragment: conntrack sees the whole packet, put together"
    gone = event(wire.packets[-1].time_ns, EntryChange.DESTROY)
    assert outcomes(followed(wire.packets, NEW, [gone])) == "aaaaaua"


def test_a_fragment_that_opens_a_connection_leaves_it_not_modelled() -> None:
    wire = Wire().from_client(SYN, 0, is_fragment=True).from_server(SYN | ACK, 0, 1).from_client(ACK, 1, 1)
    assert outcomes(wire.checked()) == "uuu"


def test_what_is_invalid_whatever_its_entry_is_so_in_a_fragment_too() -> None:
    wire = Wire().opened().from_client(SYN | FIN, 5, is_fragment=True).from_client(ACK, 5, 1)
    assert outcomes(wire.checked()) == "aaaaaIa"


def test_before_a_syn_a_part_of_a_connection_is_not_modelled() -> None:
    wire = Wire().from_client(ACK, 500, 900, 10).from_client(SYN, 0).from_server(SYN | ACK, 0, 1)
    checked = followed(wire.packets, NEW, whole=False)
    assert outcomes(checked) == "uaa"
    assert checked[0].state_after is None


def test_an_entry_has_the_reply_that_was_told_of_it_next() -> None:
    """The same addresses may be translated to another endpoint later."""
    opened = Wire().opened().packets
    here, there = event(opened[0].time_ns, EntryChange.NEW), replace(REPLY, src=FLOW.vip, sport=9)
    later = ConntrackEvent(opened[-1].time_ns + 1, "client-node", EntryChange.NEW, ORIG, there, ())
    assert outcomes(follow(opened, NEW, entries=[later, here])) == "aaaaa"
    before = ConntrackEvent(opened[0].time_ns - 1, "client-node", EntryChange.NEW, ORIG, there, ())
    assert outcomes(follow(opened, NEW, entries=[before, here])) == "aaaaa"
    assert outcomes(follow(opened, NEW, entries=[before])) == "aIIIa", "the last one told, where none is later"
    ended = replace(before, time_ns=opened[0].time_ns, change=EntryChange.DESTROY)
    assert outcomes(follow(opened, NEW, entries=[ended, here])) == "aaaaa", "the end of another says nothing of it"
    assert outcomes(follow(opened, NEW, entries=[replace(here, change=EntryChange.DESTROY)])) == "aaaaa"
