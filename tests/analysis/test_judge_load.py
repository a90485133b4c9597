"""What the connections of a load prove together, on hand-made events."""

from __future__ import annotations

from dataclasses import replace

import story
from crowd import canaries, judged, late, member, mixed, of_port, run_of, without_stimulus

from netlab.analysis.findings import analyse
from netlab.analysis.judge_load import by_connection, client_port, judge_load
from netlab.analysis.result import Outcome, Proof
from netlab.record.events import ACK, CounterChange, TraceStep
from netlab.record.flow import CANARY_PORT, Leg
from netlab.record.observers import ObserverId, ObserverKind


def test_each_connection_is_judged_by_itself() -> None:
    trial = mixed()
    assert trial.load is not None
    assert (trial.outcome, trial.missing) == (Outcome.RESET, ())
    assert {outcome.value: n for outcome in Outcome if (n := trial.load.count(outcome))} == {
        "reset": 1,
        "stalled": 1,
        "completed": 1,
    }
    assert (trial.load.connections, trial.load.late, trial.load.logged) == (3, 1, 2)
    reset, stalled = trial.load.others
    assert [piece.link.value for piece in reset.evidence] == [
        *("request", "request-translated", "reply", "invalid", "reply-untranslated"),
        *("rst", "rst-at-server", "server-reset", "client-reset"),
    ]
    assert (reset.flow.client_port, stalled.flow.client_port) == (40001, 40003)
    assert trial.load.drawn == replace(reset, duration_s=0.25)
    assert (trial.bytes_received, trial.payload_bytes) == (2304 + 2 * 10_000, 3 * 10_000)


def test_a_reset_without_its_evidence_makes_the_trial_unclear() -> None:
    broken = story.without(without_stimulus(story.reset()), "invalid")
    trial = judged([member(40001, ended=False)], of_port(broken, 40001))
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("in 1 of 1 connections: why NAT on client-node left alone the reply that was answered with a RST",),
    )


def test_only_so_many_kinds_of_what_is_missing_are_told() -> None:
    names = (("syn at server", "request at server"), ("syn,ack",), ("fin",), ("fin at client",))
    events = [
        event
        for port, gone in enumerate(names, 40001)
        for event in of_port(story.without(without_stimulus(story.accepted()), *gone), port)
    ]
    trial = judged([member(port) for port in range(40001, 40005)], events)
    assert trial.outcome is Outcome.INCONCLUSIVE
    assert trial.missing[0] == "in 1 of 4 connections: the client's connection, among the packets reaching server"
    assert (len(trial.missing), trial.missing[-1]) == (4, "and 1 things more")


def test_all_complete_or_one_is_reset_only_where_the_stimulus_is_proven() -> None:
    events = list(of_port(without_stimulus(story.accepted()), 40001))
    assert judged([member(40001)], events).outcome is Outcome.COMPLETED
    unproven = judged([member(40001)], events, Proof((), "a late segment"))
    assert (unproven.outcome, unproven.missing) == (Outcome.INCONCLUSIVE, ("a late segment",))
    assert judged([], []).missing == ("a connection",)
    reset = list(of_port(without_stimulus(story.reset()), 40001))
    unproven = judged([member(40001, ended=False)], reset, Proof((), "a late segment"))
    assert (unproven.outcome, unproven.missing) == (Outcome.INCONCLUSIVE, ("a late segment",))
    stalled = judged([member(40001, ended=False)], events)
    assert (stalled.outcome, stalled.missing) == (
        Outcome.STALLED,
        ("the end of the stream in 1 of 1 connections",),
    )


def test_a_lost_event_makes_the_whole_load_unclear() -> None:
    observed = story.observed(
        (*canaries(), *of_port(without_stimulus(story.accepted()), 40001)),
        lost=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 7),),
    )
    each = by_connection([member(40001).flow], observed.events)
    trial = judge_load(
        observed, [member(40001)], each, Proof(()), analyse(story.recording_of(observed, member(40001).flow))
    )
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("7 events lost by the packets on client/eth0",),
    )


def test_the_connection_that_shows_most_is_drawn() -> None:
    events = [
        *of_port(without_stimulus(story.accepted()), 40001),
        *of_port(without_stimulus(story.accepted()), 40002),
        *late(40002),
    ]
    trial = judged([member(40001, whole=True), member(40002, whole=True)], events)
    assert trial.flow.client_port == 40002
    assert [(piece.link.value, piece.note) for piece in trial.evidence[2:3]] == [
        ("reply", "comes to client-node 0.0 ms after it left, and 0.0 ms after its copy")
    ]
    # Of the others the packets between their ends are missing.
    assert judged([member(40001, whole=True), member(40002)], events).flow.client_port == 40001


def test_resets_are_told_per_thousand_with_an_interval() -> None:
    found = run_of(mixed(), mixed()).per_thousand()
    assert found is not None
    assert (found.resets, found.connections, round(found.rate, 1)) == (2, 6, 333.3)
    assert (round(found.low, 1), round(found.high, 1)) == (96.8, 700.0)
    assert run_of().per_thousand() is None
    assert run_of(replace(mixed(), outcome=Outcome.INCONCLUSIVE)).per_thousand() is None


def test_an_event_belongs_to_its_clients_port() -> None:
    segment = story.segment(Leg.VIP_TO_CLIENT, ACK, 1, 1)
    assert client_port(story.packet(1, "client", "in", segment), story.FLOW) == 40000
    assert client_port(replace(story.error(1, "server"), peer_port=5, local_port=80), story.FLOW) == 5
    canary = replace(segment, src=story.FLOW.client_address, sport=CANARY_PORT)
    assert client_port(story.packet(1, "client", "out", canary), story.FLOW) == CANARY_PORT


def test_an_event_of_no_connection_belongs_to_none() -> None:
    assert client_port(CounterChange(story.START_NS, "client", "Tcp.RetransSegs", 1), story.FLOW) == 0
    assert client_port(TraceStep(story.START_NS, "client", 1, "ip", "t", "c", "", "accept"), story.FLOW) == 0
