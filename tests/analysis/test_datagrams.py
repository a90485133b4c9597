"""What is RELATED to a connection: datagrams followed through NAT, ICMP's errors, expected connections; as drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pictures
import pytest
from hops import Hops
from story import FLOW, START_NS

from netlab.analysis import timeline
from netlab.analysis.findings import Findings, analyse
from netlab.analysis.result import Evidence, Link, Outcome, TrialResult
from netlab.analysis.timeline import Timeline
from netlab.experiments.conditions import conditions
from netlab.experiments.moment import Moment
from netlab.record.events import (
    ACK,
    SYN,
    ConntrackEvent,
    Datagram,
    DatagramPacket,
    Direction,
    EntryChange,
    Event,
    TraceStep,
    Tuple,
)
from netlab.record.flow import CANARY_PORT
from netlab.record.recording import Recording, from_json, to_json
from netlab.record.wire import IPPROTO_TCP
from netlab.report import html, ladder, sequence

TOUR = pictures.TOPOLOGY.replace(
    "  client-node: {role: node}\n",
    '  client-node: {role: node, tables: {inet tour: "chain c { type filter hook forward priority 0; }"}}\n',
)
CLIENT, VIP, POD = FLOW.client_address, ip_address("192.168.0.3"), FLOW.endpoint
ASKED, TRANSLATED = Tuple(CLIENT, 40000, VIP, 53, 17), Tuple(CLIENT, 40000, POD, 53, 17)
ERROR, ERROR_TRANSLATED = Tuple(POD, 0, CLIENT, 0, 1), Tuple(VIP, 0, CLIENT, 0, 1)


def seen(at_us: int, netns: str, ifname: str, direction: str, datagram: Datagram) -> DatagramPacket:
    return DatagramPacket(START_NS + at_us * 1000, netns, ifname, Direction(direction), datagram)


def asked(at_us: int, ip_id: int = 7, hops: int = 6) -> Iterator[Event]:
    """A datagram to the VIP, a microsecond a hop; client-node translates it."""
    for hop, (netns, ifname, direction) in enumerate(pictures.WAY[:hops]):
        yield seen(at_us + hop, netns, ifname, direction, Datagram(ASKED if hop < 2 else TRANSLATED, 13, ip_id))


def unreachable(at_us: int) -> Iterator[Event]:
    """The error that answers it, on its way back."""
    for hop, (netns, ifname, direction) in enumerate(reversed(pictures.WAY)):
        header, about = (ERROR, TRANSLATED) if hop < 4 else (ERROR_TRANSLATED, ASKED)
        yield seen(at_us + hop, netns, ifname, pictures.TURNED[direction], Datagram(header, 41, 0, 3, 3, about))


def matched(at_us: int, trace_id: int, state: str, datagram: Datagram, table: str = "tour") -> TraceStep:
    """A rule of client-node's that asks for a state, and that the datagram matched. A trace quotes no header whole."""
    rule, shown = f"ct state {state} counter name {state}", replace(datagram, about=None)
    return TraceStep(
        START_NS + at_us * 1000, "client-node", trace_id, "inet", table, "c", rule, "continue", datagram=shown
    )


def recording(*events: Event) -> Recording:
    """A recording of these events in the flagship with a table of its own."""
    return Hops().recording(topology=TOUR, events=events, taps=pictures.TAPS)


def built(*events: Event) -> Timeline:
    return timeline.build(recording(*events))


def trial(*evidence: Evidence) -> TrialResult:
    """A trial of a millisecond."""
    return TrialResult(Outcome.COMPLETED, 0.001, START_NS, FLOW, evidence, 0, 0)


def test_a_datagram_is_one_packet_from_end_to_end_whatever_nat_makes_of_it() -> None:
    whole = built(*asked(10), *unreachable(20))
    assert [(p.number, len(p.hops), p.delivered, p.datagram) for p in whole.datagram_paths] == [
        (1, 6, True, Datagram(ASKED, 13, 7)),
        (2, 6, True, Datagram(ERROR, 41, 0, 3, 3, TRANSLATED)),
    ]


def test_two_that_look_alike_are_two() -> None:
    whole = built(*asked(10, ip_id=0), *asked(30, ip_id=0))
    assert [(p.number, len(p.hops)) for p in whole.datagram_paths] == [(1, 6), (2, 6)]
    later = built(*asked(10, ip_id=0, hops=2), *list(asked(2_000_000, ip_id=0))[2:])
    assert [(p.number, len(p.hops)) for p in later.datagram_paths] == [(1, 2), (2, 4)]


def test_what_ended_on_its_way_was_not_delivered() -> None:
    assert [p.delivered for p in built(*asked(10, hops=5)).datagram_paths] == [False]


def test_packets_are_numbered_together_whatever_they_carry() -> None:
    whole = built(*asked(5), *Hops().opened(at_us=20).events, *unreachable(1000))
    assert [p.number for p in whole.datagram_paths] == [1, 7]
    assert [path.number for path in whole.paths] == [2, 3, 4, 5, 6]


def test_an_error_about_the_observers_own_packet_is_no_part_of_the_story() -> None:
    canary = Tuple(CLIENT, CANARY_PORT, FLOW.vip, FLOW.port, IPPROTO_TCP)
    unheard = [
        replace(event, datagram=replace(event.datagram, about=canary))
        for event in unreachable(20)
        if isinstance(event, DatagramPacket)
    ]
    assert [p.number for p in built(*asked(10), *unheard, *unreachable(40)).datagram_paths] == [1, 2]
    look, error = conditions()["datagram"].look, {"in": "client", "icmp": "port unreachable"}
    assert look(Moment(tuple(unheard), None, 0, None), error).missing
    assert not look(Moment(tuple(unreachable(40)), None, 0, None), error).missing


@pytest.mark.parametrize("numbers", [(1, 2), (1, 1)])
def test_a_trace_goes_to_the_datagram_that_it_shows(numbers: tuple[int, int]) -> None:
    first, second = Datagram(ASKED, 13, 7), Datagram(ASKED, 13, 8)
    rules = [
        matched(12, numbers[0], "new", first),
        matched(42, numbers[1], "established", second),
        replace(matched(43, numbers[1], "untracked", second), datagram=None),
    ]
    whole = built(*asked(10, ip_id=7), *asked(40, ip_id=8), *rules)
    assert [[step.rule.split()[2] for step in p.trace] for p in whole.datagram_paths] == [
        ["new"],
        ["established", "untracked"],
    ]


def test_a_trace_goes_on_under_another_number_but_not_through_the_same_chain_again() -> None:
    translated = [
        matched(12, 1, "new", Datagram(ASKED, 13, 0)),
        replace(matched(13, 2, "untracked", Datagram(TRANSLATED, 13, 0)), chain="d"),
        matched(42, 3, "established", Datagram(ASKED, 13, 0)),
    ]
    whole = built(*asked(10, ip_id=0), *asked(40, ip_id=0), *translated)
    assert [[step.rule.split()[2] for step in p.trace] for p in whole.datagram_paths] == [
        ["new", "untracked"],
        ["established"],
    ]


def related(at_us: int) -> list[Event]:
    """A second connection, to port 30000 of the VIP, which conntrack expected."""
    other = replace(FLOW, client_port=40001, port=30000, target_port=30000)
    hops = Hops()
    hops.to_server(at_us, SYN, 0, flow=other)
    hops.to_client(at_us + 100, SYN | ACK, 0, 1, flow=other)
    orig = Tuple(CLIENT, 40001, FLOW.vip, 30000, 6)
    reply = Tuple(POD, 30000, CLIENT, 40001, 6)
    master = Tuple(CLIENT, FLOW.client_port, FLOW.vip, FLOW.port, 6)
    entry = ConntrackEvent(
        START_NS + at_us * 1000 + 1, "client-node", EntryChange.NEW, orig, reply, ("EXPECTED",), tuple_master=master
    )
    return [*hops.events, entry]


def tour() -> list[Event]:
    """A handshake; a datagram and the error that answers it; a connection that was expected."""
    opened = Hops()
    opened.to_server(0, SYN, 0)
    opened.to_client(100, SYN | ACK, 0, 1)
    return [
        *opened.events,
        *asked(200),
        matched(203, 1, "new", Datagram(ASKED, 13, 7)),
        *unreachable(300),
        matched(304, 2, "related", Datagram(ERROR, 41, 0, 3, 3, TRANSLATED)),
        matched(305, 2, "related", Datagram(ERROR, 41, 0, 3, 3, TRANSLATED), table="somebody-elses"),
        *related(500),
    ]


def test_a_ladder_shows_what_is_related_and_in_which_state_the_rules_found_it() -> None:
    assert (
        ladder.render(sequence.build(Findings(built(*tour())), FLOW, trial()))
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.000 #1   SYN seq 0 win 2304   |------------NAT------------|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.100 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|-------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.200 #3   UDP :40000 > :53     |----------NAT,NEW--------->|------------>|
               len 13               |             |             |             |
               NAT on client-node: destination 192.168.0.3:53 becomes
               10.0.1.2:53
   +0.300 #4   ICMP port            |<-------NAT,RELATED--------|<------------|
               unreachable len 41   |             |             |             |
               about the packet 10.0.0.2:40000 > 10.0.1.2:53 (udp)
               NAT on client-node: source 10.0.1.2 becomes 192.168.0.3, and the
               packet that it quotes, too
   +0.500 #5   SYN seq 0 win 2304   |------------NAT------------|------------>|
               (:30000)             |             |             |             |
               a connection of its own, 10.0.0.2:40001 to 192.168.0.2:30000,
               which conntrack expected: RELATED
               NAT on client-node: destination 192.168.0.2:30000 becomes
               10.0.1.2:30000
   +0.600 #6   SYN,ACK seq 0 ack 1  |<-----------NAT------------|-------------|
               (:30000)             |             |             |             |
               NAT on client-node: source 10.0.1.2:30000 becomes
               192.168.0.2:30000
"""
    )


def test_without_a_trial_a_ladder_shows_the_errors_about_its_own_connection_alone() -> None:
    about = Tuple(CLIENT, FLOW.client_port, FLOW.vip, FLOW.port, 6)
    own = seen(400, "client", "eth0", "in", Datagram(ERROR_TRANSLATED, 41, 0, 11, 0, about))
    drawn = sequence.build(Findings(built(*tour(), own)), FLOW)
    assert [" ".join(arrow.words[:-1]) for arrow in drawn.arrows()] == [
        "SYN seq 0",
        "SYN,ACK seq 0",
        "ICMP time to live exceeded",
        "SYN seq 0 win 2304",
        "SYN,ACK seq 0 ack 1",
    ]


def test_a_dropped_datagram_names_the_rule() -> None:
    drop = replace(matched(13, 1, "new", Datagram(ASKED, 13, 7)), rule="udp dport 53 drop", verdict="drop")
    (arrow,) = sequence.build(Findings(built(*asked(10, hops=2), drop)), FLOW, trial()).arrows()
    assert (arrow.marks[-1].word, arrow.notes) == ("DROP", ("DROP: client-node, chain c: udp dport 53 drop",))
    (arrow,) = sequence.build(Findings(built(*asked(10, hops=2))), FLOW, trial()).arrows()
    assert arrow.notes == ("not seen after client-node/veth-client",)


def test_a_datagram_that_is_evidence_is_marked_and_told() -> None:
    events = tour()
    error = next(e for e in events if isinstance(e, DatagramPacket) and e.datagram.icmp_type == 3)
    drawn = sequence.build(Findings(built(*events)), FLOW, trial(Evidence(Link.OBSERVED, error, "as expected")))
    assert [(" ".join(arrow.words[:-1]), arrow.notes[0]) for arrow in drawn.arrows() if arrow.evidence] == [
        ("ICMP port unreachable", "as expected")
    ]


def test_a_recording_with_datagrams_comes_back_from_json() -> None:
    whole = recording(*tour())
    assert from_json(to_json(whole)) == whole


def test_the_page_tells_of_datagrams() -> None:
    result, _ = pictures.run(pictures.reset())
    shown = replace(result, trials=(trial(),))
    page = html.render(shown, analyse(recording(*tour())))
    assert "As it was first seen: 10.0.1.2 &gt; 10.0.0.2 ICMP port unreachable len 41" in page
    assert "RELATED at client-node" in page
    assert "6 packets of one connection and of what is beside it; all are drawn." in page
    assert "NEW, ESTABLISHED, RELATED: the state" in re.sub(r"<[^>]*>", "", page)  # words link to the glossary
