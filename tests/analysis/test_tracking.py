"""Entries followed with the model: which ran out, which a packet's look-up ended, and what can't be followed."""

from __future__ import annotations

import stories
from hops import OBSERVERS, Hops, other_flow
from story import FLOW, START_NS

from netlab.analysis.timeline import Timeline, build
from netlab.record.events import ACK, PSH, SYN, EntryChange
from netlab.record.observers import ObserverKind
from netlab.record.recording import Recording

TIMEOUT = "namespaces.client-node.sysctls.net.netfilter.nf_conntrack_tcp_timeout_established"
HALF_A_MINUTE = ((TIMEOUT, "30"),)
LAST_US = 410
"""When the last packet of `opened` came to the node."""
OUT_US = LAST_US + 30_000_000


def ended(at_us: int, *, settings: tuple[tuple[str, str], ...] = HALF_A_MINUTE) -> Timeline:
    """The entry of an open connection ends."""
    hops = Hops().opened()
    hops.entry(at_us, EntryChange.DESTROY)
    return build(hops.recording(settings=settings))


# --- entries that ran out --------------------------------------------------------------------------------------------


def test_an_entry_that_no_packet_renewed_for_its_time_ran_out() -> None:
    assert list(ended(OUT_US).ran_out.values()) == [30]
    assert list(ended(OUT_US + 900_000_000).ran_out.values()) == [30]


def test_one_that_ended_before_was_deleted() -> None:
    assert ended(OUT_US - 1).ran_out == {}


def test_its_time_is_the_kernels_own_where_the_topology_gives_none() -> None:
    assert ended(OUT_US, settings=()).ran_out == {}
    assert list(ended(LAST_US + 432_000_000_000, settings=()).ran_out.values()) == [432_000]


def test_another_change_is_no_end() -> None:
    hops = Hops().opened()
    hops.entry(OUT_US, EntryChange.UPDATE)
    assert build(hops.recording(settings=HALF_A_MINUTE)).ran_out == {}


def test_what_came_after_the_end_renewed_nothing() -> None:
    hops = Hops().opened()
    hops.entry(OUT_US, EntryChange.DESTROY)
    hops.to_server(OUT_US + 100, PSH | ACK, 5, 1, 10, nat=False)
    assert list(build(hops.recording(settings=HALF_A_MINUTE)).ran_out.values()) == [30]


def test_what_came_before_it_did() -> None:
    hops = Hops().opened()
    hops.to_client(20_000_000, ACK, 1, 5)
    hops.entry(OUT_US, EntryChange.DESTROY)
    assert build(hops.recording(settings=HALF_A_MINUTE)).ran_out == {}


def test_an_entry_without_a_packet_is_not_known() -> None:
    hops = Hops()
    hops.entry(OUT_US, EntryChange.DESTROY)
    assert build(hops.recording(settings=HALF_A_MINUTE)).ran_out == {}


# --- entries whose end a packet noticed ------------------------------------------------------------------------------


def noticed(recording: Recording) -> list[tuple[int, int]]:
    """The ends that a look-up noticed, and when the packet came, in microseconds."""
    return [
        ((entry.time_ns - START_NS) // 1000, (came_ns - START_NS) // 1000)
        for entry, came_ns in build(recording).lazily_expired.items()
    ]


def test_a_packet_that_gets_an_entry_of_its_own_noticed_that_the_old_one_was_gone() -> None:
    """The probe comes to the node at 31,000,010 us, 2 us before the end is told."""
    assert noticed(stories.expired()) == [(31_000_012, 31_000_010)]


def expired(*, made_us: int | None = None, nat: bool = False, seen: int = 5, flags: int = ACK) -> Recording:
    """The same, but the new entry is told at another time, or not at all."""
    hops = Hops().filled()
    hops.to_client(31_000_000, flags, 2304, 5, nat=nat, hops=seen)
    hops.entry(31_000_012, EntryChange.DESTROY)
    if made_us is not None:
        hops.adopted(made_us)
    return hops.recording()


def test_without_a_new_entry_the_packet_shows_by_leaving_as_it_came() -> None:
    assert noticed(expired()) == [(31_000_012, 31_000_010)]


def test_one_that_was_translated_had_its_entry() -> None:
    assert noticed(expired(nat=True)) == []


def test_one_that_was_not_seen_to_leave_tells_nothing() -> None:
    assert noticed(expired(seen=2)) == []
    assert noticed(expired(seen=2, made_us=31_000_013)) == [(31_000_012, 31_000_010)]


def test_unless_a_rule_found_it_invalid() -> None:
    hops = Hops().filled()
    bad = hops.to_client(31_000_000, ACK, 2304, 5, hops=2)
    hops.entry(31_000_012, EntryChange.DESTROY)
    hops.invalid(31_000_013, 7, bad)
    assert noticed(hops.recording()) == [(31_000_012, 31_000_010)]


def test_a_syn_may_end_an_entry_that_was_there() -> None:
    hops = Hops().opened()
    hops.to_server(1000, SYN, 500_000)
    hops.entry(1022, EntryChange.DESTROY)
    hops.entry(1023, EntryChange.NEW)
    assert noticed(hops.recording()) == []


def test_an_end_before_all_packets_was_noticed_by_none() -> None:
    hops = Hops()
    hops.entry(0, EntryChange.DESTROY)
    hops.to_client(100, ACK, 1, 5, nat=False)
    assert noticed(hops.recording()) == []


def test_an_entry_made_before_the_end_was_told_is_not_the_packets_reason() -> None:
    assert noticed(expired(made_us=31_000_011, seen=2)) == []


# --- what is followed, and where -------------------------------------------------------------------------------------


def test_only_losses_of_that_namespaces_packets_hinder() -> None:
    for observer in OBSERVERS:
        timeline = build(Hops().opened().recording(lost=((observer, 3), (OBSERVERS[-1], 0))))
        hinders = (observer.kind, observer.netns) == (ObserverKind.PACKETS, "client-node")
        assert any(path.checks for path in timeline.paths) is not hinders


def test_an_entry_is_its_flows_by_either_of_its_headers() -> None:
    hops = Hops().opened().opened(other_flow(), 5)
    hops.entry(OUT_US + 5, EntryChange.DESTROY, other_flow())
    (found,) = build(hops.recording(flows=(FLOW, other_flow()), settings=HALF_A_MINUTE)).ran_out
    assert found.tuple_orig.sport == 40001


def test_disagreements_are_in_the_order_of_the_packets() -> None:
    hops = Hops().opened().opened(other_flow(), 5)
    for at_us, flow in ((800, FLOW), (700, other_flow())):
        hops.to_client(at_us, PSH | ACK, 3000, 5, 4000, nat=False, flow=flow)
    timeline = build(hops.recording(flows=(FLOW, other_flow())))
    assert [number for number, _ in timeline.disagreements] == [11, 12]


def test_a_fix_keeps_a_connection_from_conntrack() -> None:
    assert {path.checks for path in build(Hops().opened().recording(fixes=("notrack",))).paths} == {()}
