"""The evidence that an ending rests on, as pieces in order, and what is missing from it."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import stories
from hops import Hops, other_flow
from story import FLOW, START_NS

from netlab.analysis.evidence import THROWN_AWAY, chain_of, merged, numbered, unharmed
from netlab.analysis.findings import analyse
from netlab.analysis.result import Evidence, Link
from netlab.record.events import (
    ACK,
    PSH,
    RST,
    SYN,
    CounterChange,
    EntryChange,
    Event,
    InvalidReason,
    Packet,
    SocketEvent,
    TraceStep,
)
from netlab.record.recording import Recording

REQUEST = ["request 300", "request-translated 330"]


def told(pieces: tuple[Evidence, ...]) -> list[str]:
    """Each piece's link, and when it was in microseconds."""
    return [f"{piece.link.value} {(piece.event.time_ns - START_NS) // 1000}" for piece in pieces]


def chain(recording: Recording) -> tuple[list[str], str]:
    """What the ending of the last connection rests on, and what is missing."""
    findings = analyse(recording)
    pieces, missing = chain_of(findings.of(FLOW)[-1], findings)
    return told(pieces), missing


# --- the chain -------------------------------------------------------------------------------------------------------


def test_the_whole_chain_of_a_reset() -> None:
    assert chain(stories.reset()) == (
        [
            *REQUEST,
            *("reply 700", "invalid 712", "reply-untranslated 740", "rst 760", "rst-at-server 800"),
            *("server-reset 830", "client-reset 1010"),
        ],
        "",
    )


def test_a_translator_out_of_sight_leaves_a_gap() -> None:
    pieces, missing = chain(stories.without_node())
    assert pieces[:4] == ["request 300", "request-translated 340", "reply 700", "reply-untranslated 740"]
    assert missing == "why NAT on client-node left alone the reply that was answered with a RST"


def test_a_reply_that_was_not_seen_to_leave_leaves_one_too() -> None:
    recording = stories.reset()
    left = sent_at(recording, 700)
    events = tuple(event for event in recording.events if event is not left)
    pieces, missing = chain(replace(recording, events=events))
    assert "reply 710" in pieces
    assert missing == "the reply that was answered with a RST, leaving server"


def test_an_entry_made_for_the_reply_is_why_nat_had_none_for_it() -> None:
    pieces, missing = chain(stories.expired())
    assert pieces[2:5] == ["reply 31000000", "adopted 31000013", "reply-untranslated 31000040"]
    assert missing == "ECONNRESET at the socket in server, after the RST reached it"


@pytest.mark.parametrize(("at_us", "why"), [(-99_290, True), (-99_291, False), (100_710, True), (100_711, False)])
def test_only_one_that_was_made_about_then(at_us: int, why: bool) -> None:
    """The reply comes to the node at 710 us; an event may be stamped 100 ms off."""
    hops = Hops().opened()
    hops.entry(450, EntryChange.DESTROY)
    hops.to_client(700, PSH | ACK, 1, 5, 100, nat=False)
    hops.to_server(760, RST, 5, window=0, nat=False)
    hops.adopted(at_us)
    pieces, _ = chain(hops.recording())
    assert (f"adopted {at_us}" in pieces) is why


def test_nor_one_for_another_connection() -> None:
    hops = Hops().opened()
    hops.entry(450, EntryChange.DESTROY)
    hops.to_client(700, PSH | ACK, 1, 5, 100, nat=False)
    hops.to_server(760, RST, 5, window=0, nat=False)
    hops.adopted(713, other_flow())
    assert not any(piece.startswith("adopted") for piece in chain(hops.recording())[0])


def test_a_rules_verdict_stands_for_the_log() -> None:
    recording = stories.without_log()
    bad = next(e.segment for e in recording.events if isinstance(e, Packet) and e.time_ns == START_NS + 700_000)
    hops = Hops()
    hops.invalid(715, 7, bad)
    findings = analyse(replace(recording, events=(*recording.events, *hops.events)))
    pieces, _ = chain_of(findings.of(FLOW)[0], findings)
    assert told(pieces)[2:5] == ["reply 700", "invalid 715", "reply-untranslated 740"]
    assert pieces[3].note == "a rule found it INVALID; conntrack logged no reason"
    assert chain(recording)[0][2:4] == ["reply 700", "reply-untranslated 740"]


def test_a_rst_that_answers_nothing_is_not_explained() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, RST, 101, window=0)
    hops.socket(650, "client", errno.ECONNRESET)
    assert chain(hops.recording()) == (
        [*REQUEST, "rst 600", "rst-at-client 640", "client-reset 650"],
        "what RST #7 answers, which came to client",
    )


def test_what_was_seen_of_a_reset_without_its_end() -> None:
    """The RST is lost on its way."""
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, stories.OVER, bad)
    assert chain(hops.recording()) == ([*REQUEST, "reply 700", "invalid 712", "reply-untranslated 740"], "")
    hops.to_server(760, RST, 5, window=0, nat=False, hops=2)
    assert chain(hops.recording())[0][-1] == "rst 760"


def test_a_rst_to_something_else_is_no_part_of_that() -> None:
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, stories.OVER, bad)
    hops.to_server(760, RST, 6, window=0, nat=False, hops=2)
    assert chain(hops.recording())[0][-1] == "reply-untranslated 740"


def test_without_a_rst_in_sight_the_sockets_error_lacks_its_cause() -> None:
    hops = Hops().opened()
    hops.socket(600, "client", errno.EPIPE)
    hops.socket(610, "client", errno.ECONNRESET)
    assert chain(hops.recording()) == (REQUEST, "the RST that reset the socket in client")


def test_a_connection_that_goes_on_lacks_nothing() -> None:
    assert chain(Hops().opened().recording()) == (REQUEST, "")
    assert chain(Hops().recording()) == ([], "")


# --- the socket's word -----------------------------------------------------------------------------------------------


def reset_by_peer(*events: Event) -> str:
    """What is missing of a RST that came to the client at 540 us, and of which its socket told nothing."""
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    hops.events += events
    return chain(hops.recording())[1]


def counter(at_us: int, name: str = "Tcp.EstabResets", netns: str = "client") -> CounterChange:
    return CounterChange(START_NS + at_us * 1000, netns, name, 1)


SILENT = "ECONNRESET at the socket in client, after the RST reached it"


def test_a_socket_that_says_nothing_leaves_a_gap() -> None:
    assert reset_by_peer() == SILENT


@pytest.mark.parametrize("name", ["Tcp.EstabResets", "Tcp.AttemptFails"])
def test_the_kernels_own_count_fills_it(name: str) -> None:
    assert reset_by_peer(counter(540, name)) == ""
    assert reset_by_peer(counter(600, "Tcp.InSegs"), counter(50_599, name)) == ""


@pytest.mark.parametrize(
    "events",
    [
        (counter(539),),
        (counter(600, netns="server"),),
        (counter(600, "Tcp.OutRsts"),),
        (counter(600, "Tcp.InSegs"), counter(50_600)),
    ],
)
def test_another_count_does_not(events: tuple[CounterChange, ...]) -> None:
    """One of before, of elsewhere, of something else, or of a later reading."""
    assert reset_by_peer(*events) == SILENT


def test_each_error_that_follows_is_its_own_ends() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    for at_us, netns in ((550, "client"), (560, "server"), (570, "client")):
        hops.socket(at_us, netns, errno.ECONNRESET)
    pieces, _ = chain(hops.recording())
    assert pieces[4:] == ["client-reset 550", "server-reset 560", "client-reset 570"]


def test_an_error_of_before_the_rst_is_no_link_of_its_chain() -> None:
    hops = Hops().opened()
    hops.socket(530, "client", errno.ECONNRESET)
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    assert chain(hops.recording()) == ([*REQUEST, "rst 500", "rst-at-client 540"], SILENT)


# --- a connection that no RST ended ----------------------------------------------------------------------------------


def of_unharmed(recording: Recording, *proof: Evidence, transfers: bool = True) -> list[str]:
    return told(unharmed(analyse(recording).of(FLOW)[-1], proof, transfers=transfers))


def sent_at(recording: Recording, at_us: int, netns: str = "server") -> Packet:
    """What left a namespace then."""
    return next(
        event
        for event in recording.events
        if isinstance(event, Packet) and (event.netns, event.time_ns) == (netns, START_NS + at_us * 1000)
    )


def test_the_fate_of_the_reply_that_the_proof_is() -> None:
    recording = stories.dropped()
    proof = Evidence(Link.REPLY, sent_at(recording, 700), "past the window")
    assert of_unharmed(recording, proof) == [*REQUEST, "reply 700", "invalid 712"]
    again = Evidence(Link.REPLY, sent_at(recording, 200_200))
    assert of_unharmed(recording, again) == [*REQUEST, "reply 200200", "reply-translated 200240"]


def test_what_is_not_played_to_its_end_has_the_proof_alone() -> None:
    recording = stories.dropped()
    proof = Evidence(Link.REPLY, sent_at(recording, 200_200))
    assert of_unharmed(recording, proof, transfers=False) == [*REQUEST, "reply 200200"]


def test_a_reason_leads_to_its_reply() -> None:
    recording = stories.corrupted()
    reason = next(event for event in recording.events if isinstance(event, InvalidReason))
    findings = analyse(recording)
    pieces = unharmed(findings.of(FLOW)[0], (Evidence(Link.INVALID, reason),), transfers=True)
    assert told(pieces) == [*REQUEST, "reply 700", "invalid 712", "reply-untranslated 740"]
    assert [piece.note for piece in pieces] == ["", "", "", "", THROWN_AWAY]


def test_so_does_a_rule_that_found_it_invalid() -> None:
    hops = Hops().opened()
    bad = hops.to_client(500, ACK, 1, 5, 1000, hops=2)
    hops.invalid(513, 7, bad)
    verdict = hops.events[-1]
    assert isinstance(verdict, TraceStep)
    assert of_unharmed(hops.recording(), Evidence(Link.INVALID, verdict)) == [*REQUEST, "reply 500", "invalid 513"]


def test_a_proof_of_something_else_has_no_fate() -> None:
    recording = stories.completed()
    syn = Evidence(Link.OBSERVED, sent_at(recording, 0, "client"))
    assert of_unharmed(recording, syn) == ["observed 0", *REQUEST]
    assert of_unharmed(recording) == REQUEST


def test_of_replies_that_look_alike_none_is_said_to_arrive() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100, ip_id=0, hops=3)
    hops.to_client(600, ACK, 1, 5, 100, ip_id=0)
    recording = hops.recording()
    assert of_unharmed(recording, Evidence(Link.REPLY, sent_at(recording, 600))) == [*REQUEST, "reply 600"]


# --- put together ----------------------------------------------------------------------------------------------------


def piece(link: Link, at_us: int, note: str = "") -> Evidence:
    """A piece that is an event of its own."""
    recording = stories.completed()
    return Evidence(link, replace(sent_at(recording, 0, "client"), time_ns=START_NS + at_us * 1000), note)


def test_a_proof_takes_its_place_in_time() -> None:
    both = merged((piece(Link.REQUEST, 1), piece(Link.RST, 9)), (piece(Link.STALE_WINDOW, 5),))
    assert told(both) == ["request 1", "stale-window 5", "rst 9"]


def test_the_chains_reply_is_the_one_with_the_proofs_note() -> None:
    both = merged((piece(Link.REPLY, 3),), (piece(Link.REPLY, 3, "a note"), piece(Link.REPLY, 4, "another")))
    assert [(each.event.time_ns - START_NS, each.note) for each in both] == [(3000, "a note")]


def test_without_one_the_proofs_is_told() -> None:
    assert told(merged((piece(Link.REQUEST, 1),), (piece(Link.REPLY, 4),))) == ["request 1", "reply 4"]


def test_what_was_only_observed_takes_nobodys_place() -> None:
    both = merged((piece(Link.RST, 3),), (piece(Link.OBSERVED, 3, "a note"),))
    assert [(each.link, each.note) for each in both] == [(Link.RST, "")]


# --- numbers ---------------------------------------------------------------------------------------------------------


def numbers(recording: Recording, event: Packet | SocketEvent) -> tuple[int | None, int | None]:
    findings = analyse(recording)
    found = numbered(FLOW, findings, Evidence(Link.OBSERVED, event))
    return found.relative_seq, found.relative_ack


def test_numbers_count_from_the_syns() -> None:
    recording = stories.reset()
    assert numbers(recording, sent_at(recording, 300, "client")) == (1, 1)
    assert numbers(recording, sent_at(recording, 700)) == (3000, 5)
    assert numbers(recording, sent_at(recording, 760, "client")) == (5, None)


def test_what_has_none_stays_as_it_is() -> None:
    recording = stories.reset()
    error = next(event for event in recording.events if isinstance(event, SocketEvent))
    assert numbers(recording, error) == (None, None)


@pytest.mark.parametrize("to_server", [True, False])
def test_without_both_syns_nothing_is_counted(to_server: bool) -> None:
    hops = Hops()
    (hops.to_server if to_server else hops.to_client)(0, SYN if to_server else SYN | ACK, 0)
    hops.to_client(500, ACK, 1, 5, 100)
    recording = hops.recording()
    assert numbers(recording, sent_at(recording, 500)) == (None, None)
