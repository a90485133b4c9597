"""What became of a connection's conntrack entries, in words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hops import Hops, other_flow
from story import FLOW

from netlab.analysis.transitions import transitions
from netlab.record.events import ConntrackEvent, EntryChange, Tuple

NEW, UPDATE, DESTROY = EntryChange.NEW, EntryChange.UPDATE, EntryChange.DESTROY


def told(hops: Hops) -> list[str]:
    return [each.text for each in transitions(FLOW, hops.events)]


def test_an_entry_that_a_syn_makes_is_no_news() -> None:
    for state in (None, "SYN_SENT"):
        hops = Hops()
        hops.entry(0, NEW, tcp_state=state)
        assert told(hops) == []


def test_its_end_is() -> None:
    hops = Hops()
    hops.entry(0, NEW)
    hops.entry(900, DESTROY)
    lost = "conntrack on client-node deletes the connection's entry, and its translation with it"
    assert told(hops) == [lost]
    hops.entry(5000, DESTROY, netns="server-node")
    assert told(hops) == [lost, lost.replace("client-node", "server-node")]


def test_it_is_said_why_an_entry_ran_out() -> None:
    hops = Hops()
    hops.entry(900, DESTROY)
    (event,) = hops.events
    assert isinstance(event, ConntrackEvent)
    (found,) = transitions(FLOW, hops.events, ran_out={event: 3600})
    assert found.text == (
        "conntrack on client-node lets the connection's entry run out, after 3,600 s without a packet, "
        "and its translation with it"
    )
    (found,) = transitions(FLOW, hops.events, [event], {event: 3600})
    assert found.text == (
        "conntrack on client-node finds that the connection's entry has run out, and its translation with it"
    )


@pytest.mark.parametrize(("at_us", "news"), [(900, 0), (1899, 0), (1900, 1)])
def test_the_end_of_what_a_syn_opens_anew_is_no_news(at_us: int, news: int) -> None:
    hops = Hops()
    hops.entry(900, DESTROY)
    hops.entry(at_us, NEW)
    assert len(told(hops)) == news


def test_it_is_where_the_next_one_is_elsewhere_or_in_mid_stream() -> None:
    hops = Hops()
    hops.entry(900, DESTROY)
    hops.entry(901, NEW, netns="server-node")
    assert len(told(hops)) == 1
    hops = Hops()
    hops.entry(900, DESTROY)
    hops.entry(901, NEW, tcp_state="ESTABLISHED")
    assert told(hops)[1:] == [
        "conntrack on client-node makes an entry for a packet of client's in mid-stream, translated as a new connection"
    ]


def test_an_entry_before_it_does_not_count_as_the_next() -> None:
    hops = Hops()
    hops.entry(899, NEW)
    hops.entry(900, DESTROY)
    assert len(told(hops)) == 1


@pytest.mark.parametrize("leads_to", [(FLOW.endpoint, FLOW.target_port), (FLOW.vip, FLOW.port)])
def test_a_new_entry_that_leads_to_the_same_end_needs_no_word_of_it(leads_to: tuple[object, int]) -> None:
    hops = Hops()
    reply = Tuple(leads_to[0], leads_to[1], FLOW.client_address, FLOW.client_port, 6)  # type: ignore[arg-type]
    hops.entry(900, NEW, tcp_state="ESTABLISHED", tuple_reply=reply)
    assert "another endpoint" not in told(hops)[0]


@pytest.mark.parametrize(("address", "port"), [("10.0.1.3", 8080), ("10.0.1.2", 8081)])
def test_one_that_leads_elsewhere_does(address: str, port: int) -> None:
    hops = Hops()
    reply = Tuple(ip_address(address), port, FLOW.client_address, FLOW.client_port, 6)
    hops.entry(900, NEW, tcp_state="ESTABLISHED", tuple_reply=reply)
    assert told(hops)[0].endswith(f": it leads to another endpoint, {address}:{port}")


def test_an_entry_for_the_servers_packet_is_told_and_its_end_is_not() -> None:
    hops = Hops()
    hops.adopted(900)
    (made,) = transitions(FLOW, hops.events)
    assert made.adopts_answer
    assert made.text == (
        "conntrack on client-node makes an entry for a packet of server's, as if it began a connection: without NAT"
    )
    last = hops.events[-1]
    assert isinstance(last, ConntrackEvent)
    hops.events.append(replace(last, change=DESTROY))
    assert len(told(hops)) == 1


def test_another_connections_entries_are_not_told() -> None:
    hops = Hops()
    hops.entry(900, DESTROY, other_flow())
    assert told(hops) == []


def scaled(*scales: tuple[int, int], state: str = "ESTABLISHED") -> list[str]:
    hops = Hops()
    for number, each in enumerate(scales):
        hops.entry(number * 100, UPDATE, tcp_state=state, window_scales=each)
    return told(hops)


def test_scales_that_stay_are_no_news() -> None:
    assert scaled((7, 7), (7, 7)) == []


def test_each_end_whose_windows_are_shifted_otherwise_is_told() -> None:
    assert scaled((7, 7), (0, 8)) == [
        "conntrack on client-node shifts client's windows by 0 bits from now on, and not by 7: "
        "it takes them for 128 times smaller than they are",
        "conntrack on client-node shifts server's windows by 8 bits from now on, and not by 7: "
        "it takes them for 2 times larger than they are",
    ]
    assert len(scaled((7, 7), (0, 7), (0, 7), (7, 7))) == 2


def test_before_the_connection_is_open_they_are_not_final() -> None:
    assert scaled((0, 7), (7, 7), state="SYN_RECV") == []
