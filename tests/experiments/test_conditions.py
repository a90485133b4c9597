"""What conditions make of hand-made events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import stories
import story
from hops import CLIENT, Hops

from netlab.analysis.result import Link, Proof
from netlab.errors import LabError
from netlab.experiments import trials
from netlab.experiments.conditions import conditions
from netlab.experiments.experiment import Action
from netlab.experiments.moment import Moment
from netlab.record.events import ACK, PSH, RST, Packet
from netlab.record.flow import FlowEvents
from netlab.record.observers import ObserverId, ObserverKind
from netlab.yamlspec.shapes import Fields

WHOLE = frozenset(
    (
        *(ObserverId(kind, "client-node") for kind in ObserverKind),
        ObserverId(ObserverKind.PACKETS, "client", "eth0"),
        ObserverId(ObserverKind.PACKETS, "server", "eth0"),
    )
)
"""Observers that told all they saw."""


def look(
    name: str, hops: Hops, since_us: int, arguments: Mapping[str, Any], whole: frozenset[ObserverId] | None = None
) -> Proof:
    events = tuple(sorted(hops.events, key=lambda event: event.time_ns))
    moment = Moment(events, FlowEvents(story.FLOW, events), story.START_NS + since_us * 1000, None, whole=whole)
    return conditions()[name].look(moment, arguments)


LEAVING = {"in": "server", "direction": "out", "leg": "endpoint-to-client"}


def test_a_packet_that_begins_elsewhere_than_where_the_last_one_ended() -> None:
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 1000)
    hops.to_client(700, PSH | ACK, 1001, 5, 500)
    forged = hops.to_client(800, PSH | ACK, -98_999, 5, 4)
    proof = look("packet", hops, 600, {**LEAVING, "offset": -100_000})
    assert proof.missing == ""
    (piece,) = proof.evidence
    assert isinstance(piece.event, Packet)
    assert (piece.link, piece.event.segment) == (Link.REPLY, forged)
    assert piece.note == "begins 100,000 bytes before the end of what had been sent"
    assert look("packet", hops, 600, {**LEAVING, "offset": -99_999}).missing == (
        "a segment -99,999 bytes from the end of what was sent (endpoint-to-client) leaving server"
    )


def test_an_offset_counts_in_the_direction_of_the_packet_alone() -> None:
    hops = Hops().opened()
    hops.to_server(700, ACK, 15, 1)
    proof = look("packet", hops, 600, {"in": "client", "direction": "out", "offset": 10})
    (piece,) = proof.evidence
    assert isinstance(piece.event, Packet)
    assert (piece.link, piece.event.segment.seq) == (Link.OBSERVED, CLIENT + 15)


def test_a_segment_that_its_copy_has_overtaken() -> None:
    hops = Hops().opened()
    hops.to_client(600, PSH | ACK, 1, 5, 1000, held=(1, 300_000))
    waits = look("late", hops, 500, {"in": "client-node"})
    assert waits == Proof((), "a segment that comes to client-node after a copy of its data")
    hops.to_client(900, PSH | ACK, 1, 5, 1000)
    (piece,) = look("late", hops, 500, {"in": "client-node"}).evidence
    assert (piece.link, piece.event.time_ns) == (Link.REPLY, story.START_NS + 600_000)
    assert piece.note == "comes to client-node 300.0 ms after it left, and 299.7 ms after its copy"
    assert look("late", hops, 500, {"in": "client"}).missing == ""
    assert look("late", hops, 700, {"in": "client-node"}).missing
    assert look("late", hops, 500, {"in": "client-node", "by_s": 0.3}).missing


def test_a_copy_that_comes_after_its_original_is_not_late() -> None:
    hops = Hops().opened()
    hops.to_client(600, PSH | ACK, 1, 5, 1000)
    hops.to_client(900, PSH | ACK, 1, 5, 1000)
    assert look("late", hops, 500, {"in": "client-node"}).missing


def test_a_segment_that_is_past_the_window_to_conntrack_alone() -> None:
    hops = stories.rescaling()
    proof = look("overshoot", hops, 0, {"in": "client-node"})
    assert proof.missing == ""
    (piece,) = proof.evidence
    assert (piece.link, piece.event.netns, piece.event.time_ns) == (Link.REPLY, "server", story.START_NS + 560_000)
    assert (
        piece.note == "ends 3,488 bytes past the window that conntrack on client-node knows; it forgives at most 2,895"
    )
    missing = "a segment far past the window that conntrack on client-node knows"
    assert look("overshoot", hops, 600, {"in": "client-node"}).missing == missing, "it left before that"
    unscaled = [event for event in hops.events if getattr(event, "window_scales", None) != (0, 7)]
    hops.events = unscaled
    assert look("overshoot", hops, 0, {"in": "client-node"}).missing == missing


RST_COMES = {"in": "client", "direction": "in", "flags": ("RST",)}
INVALID = {"in": "client-node", "verdict": "INVALID", "from": "server"}


def test_what_is_missing_is_refuted_once_the_time_is_over_and_nothing_was_lost() -> None:
    hops = Hops().opened()
    hops.to_client(700, PSH | ACK, 1, 5, 500)
    missing = "a segment with RST reaching client"
    assert look("packet", hops, 600, RST_COMES) == Proof((), missing)
    assert look("packet", hops, 600, RST_COMES, frozenset()) == Proof((), missing), "nobody saw the client's packets"
    refuted = f"{missing}; saw none"
    assert look("packet", hops, 600, RST_COMES, WHOLE) == Proof((), missing, refuted=refuted)
    hops.to_client(800, RST | ACK, 501, 5)
    assert look("packet", hops, 600, RST_COMES, WHOLE).missing == ""
    twice = look("packet", hops, 600, {**RST_COMES, "count": 2}, WHOLE)
    assert (twice.missing, twice.refuted) == (f"2 times {missing} (1 seen)", f"2 times {missing}; saw 1")


def test_what_was_not_to_be_and_was_seen_is_refuted_whatever_was_lost() -> None:
    hops = Hops().opened()
    none = {**RST_COMES, "count": 0}
    assert look("packet", hops, 600, none) == Proof(())
    hops.to_client(800, RST | ACK, 501, 5)
    assert look("packet", hops, 600, none) == Proof(
        (),
        "no segment with RST reaching client (1 seen)",
        refuted="no segment with RST reaching client; saw 1",
    )


def test_conntrack_says_nothing_of_what_did_not_come_to_it() -> None:
    hops = Hops().opened()
    missing = "a segment of the server's that conntrack in client-node finds INVALID"
    assert look("conntrack", hops, 600, INVALID, WHOLE) == Proof((), missing)
    sent = hops.to_client(700, PSH | ACK, 1, 5, 500)
    assert look("conntrack", hops, 600, INVALID, WHOLE).refuted == f"{missing}; saw none"
    assert look("conntrack", hops, 600, INVALID).refuted == ""
    for name, arguments in (("invalid", {"in": "client-node"}), ("found-invalid", {"in": "client-node"})):
        assert look(name, hops, 600, arguments, WHOLE).refuted
        assert not look(name, hops, 800, arguments, WHOLE).refuted
    hops.invalid(720, 1, sent)
    (piece,) = look("conntrack", hops, 600, INVALID).evidence
    assert (piece.link, piece.event.netns) == (Link.OBSERVED, "client-node")
    assert look("conntrack", hops, 600, {**INVALID, "from": "client"}).missing
    assert look("conntrack", hops, 600, {**INVALID, "flags": ("PSH",), "payload": True}).missing == ""
    assert look("conntrack", hops, 600, {**INVALID, "flags": ("RST",)}).missing


def test_conntrack_finds_each_valid_or_one_invalid() -> None:
    hops = Hops().opened()
    valid = {"in": "client-node", "verdict": "VALID", "from": "server"}
    assert look("conntrack", hops, 600, valid, WHOLE) == Proof((), "a segment of the server's coming to client-node")
    sent = hops.to_client(700, PSH | ACK, 1, 5, 500)
    assert look("conntrack", hops, 600, valid).missing == ""
    hops.invalid(720, 1, sent)
    proof = look("conntrack", hops, 600, valid)
    assert proof.refuted == "no segment of the server's that conntrack in client-node finds INVALID; saw 1"


def test_a_regular_expression_that_comes_to_no_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        DOC = ""
        ARGUMENTS = Fields({})

        def look(self, _moment: Moment, arguments: Mapping[str, Any]) -> Proof:
            re.search(arguments["reason"], "a" * 100 + "!")
            return Proof(())

    monkeypatch.setattr(trials, "_LOOK_S", 0.1)
    moment = Moment((), None, 0, None)
    with pytest.raises(LabError) as caught:
        trials._found(Slow(), moment, Action("invalid", {"in": "node", "reason": "(a+)+$"}))
    assert caught.value.message == "invalid: {in: node, reason: (a+)+$}: looking for it takes longer than 0.1 s"
    assert trials._found(Slow(), moment, Action("invalid", {"in": "node", "reason": "a+"})) == Proof(())
