"""The ladder in the terminal, on hand-made runs, compared as whole texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree

import pictures
import pytest
import story

from netlab.analysis.findings import analyse
from netlab.analysis.paths import PacketPath
from netlab.analysis.result import Evidence, Link
from netlab.record.events import (
    ACK,
    RST,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    Event,
    InvalidReason,
    Packet,
    PacketDrop,
    Segment,
    TraceStep,
    Tuple,
)
from netlab.record.flow import Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import ClosedSocket, Stimulus
from netlab.report import ladder, ladder_svg, sequence
from netlab.report.markup import text_width
from netlab.report.sequence.diagram import Arrow, Fold, Ladder, Mark
from netlab.style import Style, plain


def drawn(events: Iterable[Event], **changes: Any) -> Ladder:
    """The ladder of a run's one trial."""
    result, recording = pictures.run(events, **changes)
    return sequence.build(analyse(recording), result.trials[0].flow, result.trials[0])


def arrow(picture: Ladder, number: int) -> Arrow:
    """The packet of that number."""
    return next(each for each in picture.arrows() if each.number == number)


def test_reset() -> None:
    picture = drawn(pictures.reset(), bytes_received=2304, ended=False)
    assert (
        ladder.render(picture)
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.010 #1   SYN seq 0 win 2304   |------------NAT----------->|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.020 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|<------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.028 #3   ACK seq 1 ack 1      |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.030 #4   PSH,ACK seq 1 ack 1  |------------NAT----------->|------------>|
               len 4 win 2304       |             |             |             |
   +0.036 #5   ACK seq 1 ack 5      |<-----------NAT------------|<------------|
               len 2304             |             |             |             |
   +0.043 #6   ACK seq 5 ack 2305   |------------NAT----------->|------------>|
               win 0                |             |             |             |
   +0.050      server: its socket assumes a send window of 1,048,576 bytes from
               now on (was 0)
   +0.051 #7   ACK seq 2305 ack 5   |<-----------NAT------------|<------------|
               len 768              |             |             |             |
   +0.060 #8   PSH,ACK seq 3073     |<---------INVALID----------|<------------|
               ack 5 len 4000       |             |             |             |
               ends 4,767 bytes past what the client allowed; conntrack forgives
               at most 3,070
               INVALID: conntrack on client-node: SEQ is over upper bound 7307
               [relative 2307] (over the window of the receiver)
               NAT skipped it: it reaches client with 10.0.1.2:8080 as its
               source
   +0.066 #9   RST seq 5            |----------INVALID--------->|------------>|
               client has no connection with 10.0.1.2:8080, and answers with a
               RST, whose seq is #8's ack
               INVALID: conntrack on client-node: invalid new
   +0.073 #10  ACK seq 7073 ack 5   |<---------INVALID----------|<------------|
               len 500              |             |             |             |
               INVALID: conntrack on client-node: SEQ is over upper bound 7307
               [relative 2307] (over the window of the receiver)
               NAT skipped it: it reaches client with 10.0.1.2:8080 as its
               source
   +0.080 #11  RST seq 5            |----------INVALID--------->|------------>|
               client has no connection with 10.0.1.2:8080, and answers with a
               RST, whose seq is #10's ack
               INVALID: conntrack on client-node: invalid new
   +0.090      server: its socket has ECONNRESET
   +0.095      client: its socket has ECONNRESET
"""
    )


def test_a_packet_that_is_dropped_and_sent_again() -> None:
    picture = drawn(pictures.dropped(), fixes=("drop-invalid",))
    assert (
        ladder.render(picture)
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.010 #1   SYN seq 0 win 2304   |------------NAT----------->|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.020 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|<------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.028 #3   ACK seq 1 ack 1      |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.030 #4   PSH,ACK seq 1 ack 1  |------------NAT----------->|------------>|
               len 4 win 2304       |             |             |             |
   +0.036 #5   ACK seq 1 ack 5      |<-----------NAT------------|<------------|
               len 2304             |             |             |             |
   +0.043 #6   ACK seq 5 ack 2305   |------------NAT----------->|------------>|
               win 0                |             |             |             |
   +0.050      server: its socket assumes a send window of 1,048,576 bytes from
               now on (was 0)
   +0.051 #7   ACK seq 2305 ack 5   |<-----------NAT------------|<------------|
               len 768              |             |             |             |
   +0.060 #8   PSH,ACK seq 3073     |       INVALID,LOST--------|<------------|
               ack 5 len 4000       |             |             |             |
               ends 4,767 bytes past what the client allowed; conntrack forgives
               at most 3,070
               INVALID: conntrack on client-node: SEQ is over upper bound 7307
               [relative 2307] (over the window of the receiver)
               LOST: it was last seen at client-node/eth0
   +0.150 #9   ACK seq 5 ack 3073   |------------NAT----------->|------------>|
               win 4000             |             |             |             |
   +0.170 #10  PSH,ACK seq 3073     |<-----------NAT------------|<------------|
               ack 5 len 4000       |             |             |             |
               (again: #8)          |             |             |             |
   +0.180      ... 10 more ACKs, 9 more data segments with 900 bytes, until
               +0.370 ...
   +0.600 #30  FIN,ACK seq 7973     |<-----------NAT------------|<------------|
               ack 5                |             |             |             |
   +0.620 #31  FIN,ACK seq 5        |------------NAT----------->|------------>|
               ack 7974 win 2304    |             |             |             |
   +0.640 #32  ACK seq 7974 ack 6   |<-----------NAT------------|<------------|
"""
    )


def test_a_packet_past_the_window_that_is_accepted() -> None:
    picture = drawn(pictures.accepted(), fixes=("be-liberal",))
    assert (
        ladder.render(picture)
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.010 #1   SYN seq 0 win 2304   |------------NAT----------->|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.020 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|<------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.028 #3   ACK seq 1 ack 1      |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.030 #4   PSH,ACK seq 1 ack 1  |------------NAT----------->|------------>|
               len 4 win 2304       |             |             |             |
   +0.036 #5   ACK seq 1 ack 5      |<-----------NAT------------|<------------|
               len 2304             |             |             |             |
   +0.043 #6   ACK seq 5 ack 2305   |------------NAT----------->|------------>|
               win 0                |             |             |             |
   +0.050      server: its socket assumes a send window of 1,048,576 bytes from
               now on (was 0)
   +0.051 #7   ACK seq 2305 ack 5   |<-----------NAT------------|<------------|
               len 768              |             |             |             |
   +0.060 #8   PSH,ACK seq 3073     |<-----------NAT------------|<------------|
               ack 5 len 4000       |             |             |             |
               ends 4,767 bytes past what the client allowed; conntrack forgives
               at most 3,070
   +0.180 #9   ACK seq 5 ack 7073   |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.200      ... 9 more data segments with 900 bytes, 9 more ACKs, until
               +0.370 ...
   +0.600 #28  FIN,ACK seq 7973     |<-----------NAT------------|<------------|
               ack 5                |             |             |             |
   +0.620 #29  FIN,ACK seq 5        |------------NAT----------->|------------>|
               ack 7974 win 2304    |             |             |             |
   +0.640 #30  ACK seq 7974 ack 6   |<-----------NAT------------|<------------|
"""
    )


def test_a_stalled_connection() -> None:
    picture = drawn(pictures.stalled(), fixes=("drop-invalid",), bytes_received=2304, ended=False)
    assert (
        ladder.render(picture)
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.010 #1   SYN seq 0 win 2304   |------------NAT----------->|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.020 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|<------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.028 #3   ACK seq 1 ack 1      |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.030 #4   PSH,ACK seq 1 ack 1  |------------NAT----------->|------------>|
               len 4 win 2304       |             |             |             |
   +0.036 #5   ACK seq 1 ack 5      |<-----------NAT------------|<------------|
               len 2304             |             |             |             |
   +0.043 #6   ACK seq 5 ack 2305   |------------NAT----------->|------------>|
               win 0                |             |             |             |
   +0.050      server: its socket assumes a send window of 1,048,576 bytes from
               now on (was 0)
   +0.051 #7   ACK seq 2305 ack 5   |<-----------NAT------------|<------------|
               len 768              |             |             |             |
   +0.060 #8   PSH,ACK seq 3073     |       INVALID,LOST--------|<------------|
               ack 5 len 4000       |             |             |             |
               ends 4,767 bytes past what the client allowed; conntrack forgives
               at most 3,070
               INVALID: conntrack on client-node: SEQ is over upper bound 7307
               [relative 2307] (over the window of the receiver)
               LOST: it was last seen at client-node/eth0
"""
    )


def test_what_was_lost_is_not_called_dropped() -> None:
    picture = drawn(pictures.stalled(), lost=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 3),), ended=False)
    assert (
        ladder.render(picture)
        == """\
10.0.0.2:40000 talks to 192.168.0.2:80, which is 10.0.1.2:8080 behind the NAT of
client-node. Numbers are relative, windows in bytes, times in ms.

                                 client      client-node   server-node    server
                                10.0.0.2         VIP                    10.0.1.2
                                             192.168.0.2
                                    |             |             |             |
   +0.010 #1   SYN seq 0 win 2304   |------------NAT----------->|------------>|
               NAT on client-node: destination 192.168.0.2:80 becomes
               10.0.1.2:8080
   +0.020 #2   SYN,ACK seq 0 ack 1  |<-----------NAT------------|<------------|
               NAT on client-node: source 10.0.1.2:8080 becomes 192.168.0.2:80
   +0.028 #3   ACK seq 1 ack 1      |------------NAT----------->|------------>|
               win 2304             |             |             |             |
   +0.030 #4   PSH,ACK seq 1 ack 1  |------------NAT----------->|------------>|
               len 4 win 2304       |             |             |             |
   +0.036 #5   ACK seq 1 ack 5      |<-----------NAT------------|<------------|
               len 2304             |             |             |             |
   +0.043 #6   ACK seq 5 ack 2305   |------------NAT----------->|------------>|
               win 0                |             |             |             |
   +0.050      server: its socket assumes a send window of 1,048,576 bytes from
               now on (was 0)
   +0.051 #7   ACK seq 2305 ack 5   |<-----------NAT------------|<------------|
               len 768              |             |             |             |
   +0.060 #8   PSH,ACK seq 3073     |          INVALID----------|<------------|
               ack 5 len 4000       |             |             |             |
               ends 4,767 bytes past what the client allowed; conntrack forgives
               at most 3,070
               INVALID: conntrack on client-node: SEQ is over upper bound 7307
               [relative 2307] (over the window of the receiver)
               not seen after client-node/eth0; but events were lost
"""
    )


def test_a_rule_that_drops_is_named() -> None:
    events = pictures.stalled()
    invalid = next(event for event in events if isinstance(event, Packet) and event.segment.payload_bytes == 4000)
    rule = TraceStep(
        story.START_NS + 70_000,
        "client-node",
        trace_id=1,
        family="ip",
        table="filter",
        chain="KUBE-FORWARD",
        rule="ct state invalid counter drop",
        verdict="drop",
        segment=invalid.segment,
    )
    picture = drawn([*events, rule], ended=False)
    assert arrow(picture, 8).notes[-1] == "DROP: client-node, chain KUBE-FORWARD: ct state invalid counter drop"


def test_a_reason_for_a_packet_that_is_translated_all_the_same_is_not_called_invalid() -> None:
    ignored = story.reason(63, "client-node", "1536 bytes more than expected", _reply())
    told = arrow(drawn([*pictures.accepted(), ignored]), 8)
    assert not told.marked("INVALID")
    assert told.notes[-1] == "conntrack on client-node: 1536 bytes more than expected: logged, but let pass"


def test_a_namespace_that_a_packet_passes_by_gets_no_tip_of_its_arrow() -> None:
    aside = story.packet(33, "other-node", "in", story.segment(Leg.CLIENT_TO_VIP, 1 << 4, 1005, 7305))
    picture = drawn([*pictures.reset(), aside], bytes_received=2304, ended=False)
    assert [column.netns for column in picture.columns] == [
        *("client", "other-node", "client-node", "server-node", "server")
    ]
    lines = ladder.render(picture).splitlines()
    assert f"{'10.0.0.2':>40}{'VIP 192.168.0.2':>24}{'10.0.1.2':>16}" in lines
    assert "   +0.010 #1   SYN seq 0 win 2304   |---------|--------NAT------->|-------->|" in lines
    assert "   +0.020 #2   SYN,ACK seq 0 ack 1  |<--------|--------NAT--------|<--------|" in lines
    figure = str(ladder_svg.figures(picture)[0])
    (width,) = re.findall(r'viewBox="0 0 ([0-9.]+) ', figure)
    assert float(width) <= 1100  # the page's text is about as wide
    # On the whole way there is a tip in client-node, too, which the mark for NAT hides.
    (first,) = re.findall(r'aria-label="Packet 1,.*?</a>', figure, re.S)
    assert first.count('class="tip"') == 3


def test_the_steps_of_a_trial_stand_between_its_packets() -> None:
    result, recording = pictures.run(pictures.reset(), bytes_received=2304, ended=False)
    began = [(-500, "connect"), (8, "connect"), (49, "push: {end: server}"), (5000, "connect")]
    stimuli = tuple(Stimulus(story.START_NS + at_us * 1000, text) for at_us, text in began)
    trial, built = result.trials[0], analyse(replace(recording, stimuli=stimuli))
    lines = ladder.render(sequence.build(built, trial.flow, trial)).splitlines()
    told = [index for index, line in enumerate(lines) if "step: " in line]
    assert [lines[index].strip() for index in told] == [
        "+0.008      step: connect",
        "+0.049      step: push: {end: server}",
    ]
    assert [lines[index + 1].split()[1] for index in told] == ["#1", "server:"]
    assert "step: " not in ladder.render(sequence.build(built, trial.flow))


def test_what_netlab_closes_itself_is_told() -> None:
    result, recording = pictures.run(pictures.accepted())
    server = ClosedSocket(story.START_NS + 590_000, "server", Tuple(*story.FLOW.header(Leg.ENDPOINT_TO_CLIENT), 6))
    closing = Stimulus(server.time_ns, "", (server,))
    trial, built = result.trials[0], analyse(replace(recording, stimuli=(closing,)))
    lines = ladder.render(sequence.build(built, trial.flow, trial)).splitlines()
    (told,) = (index for index, line in enumerate(lines) if "the trial is over" in line)
    assert lines[told].strip() == "+0.590      the trial is over: netlab closes the sockets that are still open"
    assert "FIN" in lines[told + 1]


def found_invalid(at_us: int, trace_id: int, segment: Segment) -> TraceStep:
    """A rule of the observers' own on client-node found it INVALID."""
    at_ns = story.START_NS + at_us * 1000
    table, chain, rule = TRACE_TABLE, TRACE_INVALID_CHAIN, "ct state invalid meta nftrace set 1"
    return TraceStep(at_ns, "client-node", trace_id, "inet", table, chain, rule, "continue", segment=segment)


def test_a_packet_that_a_rule_found_invalid_is_so_without_a_reason_in_the_log() -> None:
    bare = [
        event
        for event in pictures.reset()
        if not (isinstance(event, InvalidReason) and event.segment.payload_bytes == 4000)
    ]
    invalid = next(event for event in bare if isinstance(event, Packet) and event.segment.payload_bytes == 4000)
    told = arrow(drawn([*bare, found_invalid(64, 1, invalid.segment)], bytes_received=2304, ended=False), 8)
    assert [(picture.column, picture.word) for picture in told.marks] == [(1, "INVALID")]
    assert told.notes[-2:] == (
        "INVALID: a rule on client-node found it so; conntrack logged no reason",
        "NAT skipped it: it reaches client with 10.0.1.2:8080 as its source",
    )
    assert told.kind == ("data segment", "INVALID")


@pytest.mark.parametrize(
    ("reason", "word", "note", "kind"),
    [
        ("IP_INNOROUTES", "DROP", "DROP: client-node's kernel: IP_INNOROUTES", "INVALID, dropped"),
        ("NEIGH_FAILED", "LOST", "LOST: client-node waited for a neighbour that never answered", "INVALID, lost"),
    ],
)
def test_why_the_kernel_threw_a_packet_away(reason: str, word: str, note: str, kind: str) -> None:
    seen = pictures.stalled()
    reply = (event for event in seen if isinstance(event, Packet) and event.segment.payload_bytes == 4000)
    last = max(reply, key=lambda packet: packet.time_ns)
    thrown = PacketDrop(last.time_ns + 2000, "client-node", reason, segment=last.segment)
    told = arrow(drawn([*seen, thrown], bytes_received=3072, ended=False), 8)
    assert Mark(1, word) in told.marks
    assert told.notes[-1] == note
    assert told.kind == ("data segment", kind)


def test_what_was_not_translated_ends_on_its_way_to_the_vip() -> None:
    ack = story.segment(Leg.CLIENT_TO_VIP, ACK, 1005, 7305)
    way = [story.packet(700, "client", "out", ack), story.packet(701, "client-node", "in", ack, "veth-client")]
    picture = drawn([*pictures.reset(), *way, found_invalid(703, 1, ack)], bytes_received=2304, ended=False)
    assert arrow(picture, 12).notes == (
        "INVALID: a rule on client-node found it so; conntrack logged no reason",
        "LOST: it was last seen at client-node/veth-client; no route to the VIP",
    )


def test_a_probe_of_a_closed_window_is_no_other_ack() -> None:
    probe = pictures.to_client(45, ACK, 7304, 1005)
    again = [*pictures.to_server(700, ACK, 1005, 7573, window=0), *pictures.to_client(710, ACK, 7572, 1005)]
    told = [each for each in drawn([*pictures.accepted(), *probe, *again]).arrows() if each.kind[0] == "window probe"]
    assert [each.words[1] for each in told] == ["seq 2304"]
    assert [each.notes for each in told] == [("server asks whether client's window is open again",)]


def test_a_rst_answers_what_has_come_by_then() -> None:
    seq, ack, length = story.REPLY
    late = pictures.to_client(64, ACK, seq + length, ack, 500, invalid=True)
    slow = [
        replace(event, time_ns=event.time_ns + 100_000)
        if isinstance(event, Packet) and event.netns == "client"
        else event
        for event in late
    ]
    events = [event for event in pictures.reset() if event.time_ns < story.START_NS + 73_000]
    rst = arrow(drawn([*events, *slow, story.error(90, "server")], ended=False), 10)
    assert rst.words[0] == "RST"
    assert rst.notes[0].endswith("answers with a RST, whose seq is #8's ack")


def test_a_rst_that_answers_a_translated_packet_says_why() -> None:
    refused = [*pictures.to_server(700, ACK, 1005, 7573), *pictures.to_client(710, RST, 7573, 0)]
    picture = drawn([*pictures.reset(), *refused], bytes_received=2304, ended=False)
    assert arrow(picture, 13).notes == (
        "server has no such connection any more, and answers with a RST, whose seq is #12's ack",
    )


def test_a_port_that_is_used_again_is_answered_by_the_connection_that_is_still_there() -> None:
    events = [
        *pictures.to_server(700, SYN, 900_000, 0),
        *pictures.to_client(710, ACK, 7073, 1005),
        *pictures.to_server(720, RST, 1005, 0),
    ]
    picture = drawn([*pictures.accepted(), *events])
    answer, rst = (each for each in picture.arrows() if each.time_ns >= story.START_NS + 710_000)
    asked = f"#{answer.number - 1}"
    assert answer.notes == (f"server answers the SYN {asked} with an ACK of the connection that it still has",)
    assert rst.notes == (
        f"client has sent nothing that #{answer.number} could acknowledge, and answers with a RST, whose seq is "
        f"#{answer.number}'s ack",
    )


def _reply() -> Any:
    """The reply past the window as it reaches the client's node in `pictures.accepted`."""
    return next(
        event.segment
        for event in pictures.accepted()
        if isinstance(event, Packet) and event.segment.payload_bytes == 4000 and event.netns == "client-node"
    )


def test_a_fold_counts_what_it_hides_and_evidence_is_never_hidden() -> None:
    picture = drawn(pictures.dropped(), fixes=("drop-invalid",))
    folds = [row for row in picture.rows if isinstance(row, Fold)]
    shown = [row for row in picture.rows if isinstance(row, Arrow)]
    assert sorted(each.number for each in picture.arrows()) == list(range(1, 33))
    assert [(len(fold.arrows), fold.text) for fold in folds] == [
        (19, "10 more ACKs, 9 more data segments with 900 bytes, until +0.370")
    ]
    assert [each.number for each in shown if each.evidence] == [4, 8]

    result, recording = pictures.run(pictures.dropped(), fixes=("drop-invalid",))
    path = arrow(picture, 20).path
    assert isinstance(path, PacketPath)
    late = path.hops[0].parts[0]
    trial = replace(result.trials[0], evidence=(Evidence(Link.REPLY, late, "late, but evidence"),))
    again = sequence.build(analyse(recording), trial.flow, trial)
    assert [(row.number, row.notes) for row in again.rows if isinstance(row, Arrow) and row.evidence] == [
        (20, ("late, but evidence",))
    ]
    assert [len(row.arrows) for row in again.rows if isinstance(row, Fold)] == [9, 9]


def test_without_a_trial_times_count_from_the_first_packet() -> None:
    _, recording = pictures.run(pictures.reset(), bytes_received=2304, ended=False)
    picture = sequence.build(analyse(recording), recording.flows[0])
    assert [row.evidence for row in picture.arrows()] == [False] * 11
    assert "   +0.000 #1   SYN seq 0 win 2304   |------------NAT" in ladder.render(picture)


def test_the_text_is_ascii_and_no_line_is_longer_than_the_width_whatever_the_names() -> None:
    long = {name: f"a-{name}-whose-name-is-longer-than-a-column" for name in ("client", "client-node", "server")}
    picture = drawn(pictures.reset(), bytes_received=2304, ended=False)
    flow = replace(
        picture.flow,
        client_address=ip_address("2001:db8:1111:2222:3333:4444:5555:6666"),
        vip=ip_address("2001:db8:1111:2222:3333:4444:5555:7777"),
        endpoint=ip_address("2001:db8:1111:2222:3333:4444:5555:8888"),
    )
    columns = tuple(
        replace(column, netns=long.get(column.netns, column.netns), label=str(flow.vip)) for column in picture.columns
    )
    for width in (20, 60, 79, 80, 81, 132, 200):
        text = ladder.render(replace(picture, flow=flow, columns=columns), width)
        assert text.isascii()
        assert max(len(line) for line in text.splitlines()) <= max(width, 60)
        assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_on_a_narrow_page_words_stand_below() -> None:
    picture = drawn(pictures.reset(), bytes_received=2304, ended=False)
    lines = ladder.render(picture, 60).splitlines()
    at = next(index for index, line in enumerate(lines) if "-INVALID-" in line)
    assert lines[at : at + 2] == [
        "   +0.060 #8    |<---------INVALID----------|<------------|",
        "               PSH,ACK seq 3073 ack 5 len 4000",
    ]


def test_the_lines_of_invalid_packets_are_styled() -> None:
    picture = drawn(pictures.reset(), bytes_received=2304, ended=False)
    pieces = list(ladder.pieces(picture))
    assert plain(pieces) == ladder.render(picture)
    styled = [piece.text for piece in pieces if piece.style is Style.BAD]
    assert styled == [line for line in ladder.render(picture).splitlines() if re.search(r"-INVALID-", line)]
    assert styled


@pytest.mark.parametrize("between", [1, 2, 6])
def test_a_namespace_that_there_is_no_room_for_is_named_instead(between: int) -> None:
    way = [("client", "eth0", "out", Leg.CLIENT_TO_VIP), ("client-node", "eth0", "out", Leg.CLIENT_TO_ENDPOINT)]
    way += [(f"router-{index}", "eth0", "in", Leg.CLIENT_TO_ENDPOINT) for index in range(1, between + 1)]
    way.append(("server", "eth0", "in", Leg.CLIENT_TO_ENDPOINT))
    events = [
        story.packet(700 + step, netns, direction, story.segment(leg, 1 << 4, 1005, 9000), ifname)
        for step, (netns, ifname, direction, leg) in enumerate(way)
    ]
    picture = drawn([*pictures.reset(), *events], bytes_received=2304, ended=False)
    routers = [f"router-{index}" for index in range(1, between + 1)]
    assert [column.netns for column in picture.columns] == [
        *("client", "client-node"),
        *routers,
        *("server-node", "server"),
    ]
    text = ladder.render(picture)
    assert max(len(line) for line in text.splitlines()) <= 80
    named = [line for line in text.splitlines() if line.startswith("Not drawn")]
    assert named == ([] if between == 1 else [f"Not drawn, for want of room: {', '.join(routers[1:])}."])


def test_a_long_name_is_broken_above_its_lifeline() -> None:
    picture = drawn(pictures.reset(), bytes_received=2304, ended=False)
    name = "a-server-with-a-name-as-long-as-the-names-of-servers-may-ever-be"[:63]
    columns = (*picture.columns[:-1], replace(picture.columns[-1], netns=name))
    usual, tall = (
        next(ElementTree.fromstring(str(each)) for each in ladder_svg.figures(one))
        for one in (picture, replace(picture, columns=columns))
    )
    heads = [each.text or "" for each in tall.iter("text") if each.get("class") == "head"]
    assert heads[:3] == ["client", "client-node", "server-node"] and "".join(heads[3:]) == name
    assert all(text_width(head, 13) < 150 for head in heads)
    lowest = {each.text: float(each.get("y", "")) for each in usual.iter("text") if each.get("class") == "head"}
    more = 17 * (len(heads) - 4)
    assert {float(each.get("y", "")) for each in tall.iter("text") if each.text in lowest} == {lowest["client"] + more}
    assert {float(each.get("y1", "")) for each in tall.iter("line") if each.get("class") == "lifeline"} == {44 + more}
