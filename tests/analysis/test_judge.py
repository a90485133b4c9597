"""The judge on hand-made events: what proves a reset, what proves there was none, and what is missing otherwise."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import story
from hops import Hops

from netlab.analysis.findings import analyse
from netlab.analysis.judge import judge_trial
from netlab.analysis.result import Conclusion, Evidence, Link, Outcome, Proof, Result, TrialResult, wilson_interval
from netlab.conntrack.reach import Reach
from netlab.experiments.conditions.burst import reached_by
from netlab.record.events import (
    ACK,
    PSH,
    RST,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    EntryChange,
    Event,
    Packet,
    SocketEvent,
    TraceStep,
    Tuple,
)
from netlab.record.flow import FlowEvents, Leg
from netlab.record.observers import ObserverId, ObserverKind


def judge(events: Mapping[str, Event], **changes: Any) -> TrialResult:
    return story.judge(story.observed(events, **changes))


def links(trial: TrialResult) -> list[str]:
    return [piece.link.value for piece in trial.evidence]


def result(*outcomes: Outcome, fixes: tuple[str, ...] = ()) -> Result:
    trial = judge(story.reset())
    trials = tuple(replace(trial, outcome=outcome) for outcome in outcomes)
    return Result("window-overrun", "a claim", "lab", fixes, "6.18", trials)


# --- reset -----------------------------------------------------------------------------------------------------------


def test_a_whole_chain_is_a_reset() -> None:
    trial = judge(story.reset(), bytes_received=2304, ended=False)
    assert (trial.outcome, trial.missing, trial.lost) == (Outcome.RESET, (), 0)
    assert links(trial) == [
        "request",
        "request-translated",
        "stale-window",
        "reply",
        "invalid",
        "reply-untranslated",
        "rst",
        "rst-at-server",
        "server-reset",
        "client-reset",
    ]


def test_evidence_has_relative_numbers_and_the_overrun() -> None:
    events = story.reset()
    trial = judge(events)
    by_link = {piece.link: piece for piece in trial.evidence}
    assert by_link[Link.REPLY] == Evidence(
        Link.REPLY,
        events["reply"],
        "ends 4,767 bytes past what the client allowed; conntrack forgives at most 3,070",
        relative_seq=3073,
        relative_ack=5,
    )
    assert by_link[Link.RST] == Evidence(Link.RST, events["rst"], relative_seq=5, relative_ack=None)
    assert by_link[Link.SERVER_RESET] == Evidence(Link.SERVER_RESET, events["server reset"])


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("reply", "the reply that was answered with a RST, leaving server"),
        ("invalid", "why NAT on client-node left alone the reply that was answered with a RST"),
        ("reply untranslated", "what RST #9 answers, which came to server"),
        ("rst", "what RST #9 answers, which came to server"),
        ("rst at server", "the RST that reset the socket in server"),
        ("server reset", "ECONNRESET at the socket in server, after the RST reached it"),
    ],
)
def test_each_missing_link_is_named(gone: str, missing: str) -> None:
    trial = judge(story.without(story.reset(), gone))
    assert (trial.outcome, trial.missing) == (Outcome.INCONCLUSIVE, (missing,))


@pytest.mark.parametrize(
    ("name", "at_us", "missing"),
    [
        ("reply", 66, "the reply that was answered with a RST, leaving server"),
        ("rst", 63, "what RST #9 answers, which came to server"),
        ("rst at server", 64, "what RST #9 answers, which came to server"),
        ("server reset", 66, "ECONNRESET at the socket in server, after the RST reached it"),
    ],
)
def test_a_link_out_of_order_is_a_missing_one(name: str, at_us: int, missing: str) -> None:
    trial = judge(story.moved(story.reset(), name, at_us))
    assert (trial.outcome, trial.missing) == (Outcome.INCONCLUSIVE, (missing,))


def test_a_reason_may_be_early_by_less_than_its_microsecond() -> None:
    early = story.reset()
    early["invalid"] = replace(early["invalid"], time_ns=early["reply at node"].time_ns - 999)
    assert judge(early).outcome is Outcome.RESET
    early["invalid"] = replace(early["invalid"], time_ns=early["reply at node"].time_ns - 1000)
    assert judge(early).outcome is Outcome.INCONCLUSIVE


def test_a_reset_that_came_otherwise_than_claimed_is_inconclusive() -> None:
    events = story.reset()
    stale = events["stale window"]
    assert isinstance(stale, SocketEvent)
    events["stale window"] = replace(stale, window_bytes=0)
    trial = judge(events)
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("a larger send window: the kernel's went from 0 to 0 bytes; the connection was still reset",),
    )
    assert "server-reset" in links(trial)


def test_a_reset_forestalls_what_sockets_were_to_get() -> None:
    proof = Proof((), "100 bytes at the client", only_states=True)
    assert story.judge(story.observed(story.reset()), lambda _: proof).outcome is Outcome.RESET
    trial = story.judge(story.observed(story.accepted()), lambda _: proof)
    assert (trial.outcome, trial.missing) == (Outcome.INCONCLUSIVE, ("100 bytes at the client",))


def test_a_rst_with_another_sequence_number_is_not_the_answer() -> None:
    events = story.reset()
    other = story.segment(Leg.CLIENT_TO_ENDPOINT, RST, 1006, 0, window=0)
    events["rst"] = story.packet(65, "client", "out", other)
    events["rst at server"] = story.packet(67, "server", "in", other)
    assert judge(events).missing == ("the RST that reset the socket in server",)


def test_another_error_than_econnreset_is_no_reset() -> None:
    events = story.without(story.reset(), "client reset")
    events["server reset"] = story.error(90, "server", errno.ETIMEDOUT)
    assert judge(events).missing == ("ECONNRESET at the socket in server, after the RST reached it",)


def test_a_reason_of_another_node_is_no_link() -> None:
    events = story.reset()
    events["invalid"] = replace(events["invalid"], netns="server-node")
    assert judge(events).outcome is Outcome.INCONCLUSIVE


def _verdict(at_us: int, netns: str = "client-node") -> TraceStep:
    """A rule found the reply to be `ct state invalid`."""
    bad = story.segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *story.REPLY)
    time_ns = story.START_NS + at_us * 1000
    return TraceStep(time_ns, netns, 7, "inet", TRACE_TABLE, TRACE_INVALID_CHAIN, "", "continue", segment=bad)


def _adoption(at_us: int, netns: str = "client-node") -> ConntrackEvent:
    """Conntrack made an entry that the server's packet begins."""
    flow = story.FLOW
    orig = Tuple(flow.endpoint, flow.target_port, flow.client_address, flow.client_port, 6)
    reply = Tuple(flow.client_address, flow.client_port, flow.endpoint, flow.target_port, 6)
    return ConntrackEvent(story.START_NS + at_us * 1000, netns, EntryChange.NEW, orig, reply, ())


@pytest.mark.parametrize(("event", "link"), [(_verdict(70), "invalid"), (_adoption(70), "adopted")])
def test_nat_skips_a_reply_for_other_reasons_than_the_log_has(event: Event, link: str) -> None:
    whole = {**story.without(story.reset(), "invalid"), "why": event}
    trial = judge(whole)
    assert trial.outcome is Outcome.RESET
    assert [piece.link.value for piece in trial.evidence if piece.event is event] == [link]


@pytest.mark.parametrize("event", [_verdict(60), _verdict(70, "server-node"), _adoption(70, "server-node")])
def test_what_came_too_early_or_elsewhere_is_no_reason(event: Event) -> None:
    trial = judge({**story.without(story.reset(), "invalid"), "why": event})
    assert trial.outcome is Outcome.INCONCLUSIVE


def test_a_reply_with_a_wrong_checksum_is_no_sign_of_a_reset() -> None:
    events = story.dropped()
    bad = story.segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *story.REPLY)
    events["reply at node"] = story.packet(62, "client-node", "in", bad)
    events["reply from node"] = story.packet(63, "client-node", "out", bad, "cni0")
    events["invalid"] = story.reason(62, "client-node", "bad checksum", bad)
    events["reply untranslated"] = story.packet(64, "client", "in", bad)
    trial = judge(events)
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())
    assert links(trial)[-3:] == ["reply", "invalid", "reply-untranslated"]
    assert trial.evidence[-1].note == "the client's kernel drops it: its checksum is wrong"
    events["invalid"] = story.reason(62, "client-node", story.UPPER_BOUND, bad)
    assert judge(events).evidence[-1].note == ""


def test_what_happened_to_an_earlier_connection_of_the_port_is_no_sign_of_a_reset() -> None:
    events = story.without(story.dropped(), "stale window", "invalid", "reply again")
    events["old request"] = story.packet(1, "client", "out", story.segment(Leg.CLIENT_TO_VIP, ACK, 77, 88, 9))
    events["old end"] = story.error(2, "server")
    old = story.error(60, "server")
    assert isinstance(old, SocketEvent)
    events["old socket"] = replace(old, connection="old")
    began_ns = story.START_NS + 5_000
    trial = story.judge(story.observed(events, since_ns=began_ns), lambda _: Proof(()))
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())
    assert trial.evidence[0].event == events["request"]
    events["old socket"] = old
    trial = story.judge(story.observed(events, since_ns=began_ns), lambda _: Proof(()))
    assert trial.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("since_us", "duration_s", "outcome"),
    [
        (0, 0.0055, Outcome.RESET_BY_PEER),  # only the first has begun by then
        (5_000, 0.25, Outcome.SYN_UNANSWERED),  # the first is over by then
        (0, 0.25, Outcome.SYN_UNANSWERED),  # both are the trial's: the last counts
        (500_000, 0.25, Outcome.SYN_UNANSWERED),  # none is: the last is all there is
    ],
)
def test_of_connections_of_one_port_the_trials_is_judged(since_us: int, duration_s: float, outcome: Outcome) -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    hops.socket(560, "client", errno.ECONNRESET)
    hops.to_server(9000, SYN, 500_000)
    recording = hops.recording()
    observed = story.observed(
        recording.events,
        canaries=(),
        connects=False,
        duration_s=duration_s,
        since_ns=story.START_NS + since_us * 1000,
    )
    assert judge_trial(observed, Proof(()), analyse(recording)).outcome is outcome


def test_a_reply_is_found_by_what_conntrack_logged_of_it() -> None:
    events = story.dropped()
    reason = events["invalid"]
    trial = story.judge(story.observed(events), lambda _: Proof((Evidence(Link.OBSERVED, reason),)))
    assert links(trial) == ["request", "request-translated", "reply", "invalid"]
    assert trial.evidence[2].event == events["reply"]


def test_of_several_untranslated_replies_the_one_with_the_whole_chain_counts() -> None:
    events = story.reset()
    first = story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 7305, 1005, 768)
    events["burst untranslated"] = story.packet(62, "client", "in", first)
    trial = judge(events)
    assert trial.outcome is Outcome.RESET
    assert [piece.event for piece in trial.evidence if piece.link is Link.REPLY_UNTRANSLATED] == [
        events["reply untranslated"]
    ]


# --- no reset --------------------------------------------------------------------------------------------------------


def test_a_dropped_overrun_is_completed_and_its_copy_is_not_taken_for_it() -> None:
    trial = judge(story.dropped())
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())
    assert links(trial) == ["request", "request-translated", "stale-window", "reply", "invalid"]


def test_an_accepted_overrun_is_completed() -> None:
    trial = judge(story.accepted())
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())
    assert links(trial) == ["request", "request-translated", "stale-window", "reply", "reply-translated"]


@pytest.mark.parametrize(
    ("changes", "outcome", "missing"),
    [
        ({"ended": False, "bytes_received": 4000}, "stalled", "the end of the stream: 4,000 of 10,000 bytes in 0.2 s"),
        (
            {"intact": False},
            "inconclusive",
            "the right bytes: the client got 10,000 of 10,000 bytes, not all as they were sent",
        ),
        (
            {"bytes_received": 9999},
            "inconclusive",
            "the whole payload: the client got 9,999 of 10,000 bytes, then the end of the stream",
        ),
    ],
)
def test_what_did_not_arrive_is_not_completed(changes: dict[str, Any], outcome: str, missing: str) -> None:
    trial = judge(story.dropped(), **changes)
    assert (trial.outcome.value, trial.missing) == (outcome, (missing,))


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        (["stale window"], "the stale window, read back from the socket in server"),
        (["fin"], "the server's FIN, among the packets leaving server"),
        (["fin at client"], "the server's FIN, among the packets reaching client"),
        (["syn at server", "request at server"], "the client's connection, among the packets reaching server"),
        (["syn,ack"], "the SYN,ACK, among the packets leaving server"),
        (["syn"], "the handshake, which tells what the client allowed"),
        (
            ["reply", "reply again"],
            "a burst far enough past the client's window: it went 767 bytes past it, and conntrack forgives 2,303",
        ),
        (["canary before, client"], "the canary before the trial, among the packets leaving client"),
        (["canary before, node"], "the canary before the trial, among the packets reaching client-node"),
        (["canary after, reason"], "the canary after the trial, among conntrack's reasons on client-node"),
    ],
)
def test_without_proof_nothing_is_completed(gone: list[str], missing: str) -> None:
    trial = judge(story.without(story.dropped(), *gone))
    assert (trial.outcome, trial.missing) == (Outcome.INCONCLUSIVE, (missing,))


def test_nothing_sent_under_the_stale_window_proves_nothing() -> None:
    events = story.without(story.accepted(), "burst", "reply")
    assert judge(events).missing == ("data leaving server after the stale window was set",)


def test_a_window_that_allows_everything_is_a_fair_control() -> None:
    events = story.accepted()
    wide = story.segment(Leg.CLIENT_TO_VIP, ACK, 1005, 7305, window=60000)
    events["fill acked"] = story.packet(35, "client", "out", wide)
    stale = events["stale window"]
    assert isinstance(stale, SocketEvent)
    events["stale window"] = replace(stale, was_bytes=60000)
    trial = judge(events)
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())
    notes = [piece.note for piece in trial.evidence if piece.link is Link.REPLY]
    assert notes == ["inside the client's window, as every byte the server sent"]


def test_a_stray_reset_that_did_no_harm_leaves_a_connection_completed() -> None:
    events = story.accepted()
    events["stray rst"] = story.reset()["rst"]
    trial = judge(events)
    assert (trial.outcome, trial.missing) == (Outcome.COMPLETED, ())


@pytest.mark.parametrize("transfers", [True, False])
def test_an_error_without_a_cause_is_inconclusive(transfers: bool) -> None:
    events = story.accepted()
    events["timeout"] = story.error(90, "client", errno.ETIMEDOUT)
    trial = judge(events, transfers=transfers)
    assert trial.outcome is Outcome.INCONCLUSIVE
    assert trial.missing == ("a cause for ETIMEDOUT at the socket in client: 10,000 of 10,000 bytes had arrived",)


@pytest.mark.parametrize("events", [story.reset(), story.accepted()], ids=["reset", "accepted"])
def test_lost_events_make_any_trial_inconclusive(events: dict[str, Event]) -> None:
    trial = judge(
        events,
        lost=(
            (ObserverId(ObserverKind.PACKETS, "client", "eth0"), 1),
            (ObserverId(ObserverKind.REASONS, "client-node"), 7),
        ),
    )
    assert (trial.outcome, trial.lost) == (Outcome.INCONCLUSIVE, 8)
    assert trial.missing == (
        "1 event lost by the packets on client/eth0",
        "7 events lost by conntrack's reasons on client-node",
    )


def test_a_trial_that_failed_early_says_why() -> None:
    events = {name: event for name, event in story.reset().items() if name.startswith("canary")}
    trial = judge(events, failed="a connection from client to 192.168.0.2 port 80", bytes_received=0, ended=False)
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("a connection from client to 192.168.0.2 port 80",),
    )


def test_a_window_that_stayed_as_it_was_is_no_stimulus() -> None:
    events = story.accepted()
    stale = events["stale window"]
    assert isinstance(stale, SocketEvent)
    events["stale window"] = replace(stale, window_bytes=0)
    assert judge(events).missing == ("a larger send window: the kernel's went from 0 to 0 bytes",)


def test_a_burst_that_waited_for_the_window_to_open_is_no_stimulus() -> None:
    events = story.accepted()
    opened = story.segment(Leg.CLIENT_TO_VIP, ACK, 1005, 7305, window=60000)
    events["opened"] = story.packet(55, "client", "out", opened)
    assert judge(events).missing == (
        "a burst past the client's window of 0 bytes: the window opened before data left under the stale one",
    )


# --- all trials together ---------------------------------------------------------------------------------------------

RESET, COMPLETED, STALLED, INCONCLUSIVE = Outcome.RESET, Outcome.COMPLETED, Outcome.STALLED, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("outcomes", "conclusion"),
    [
        ([RESET, RESET], Conclusion.REPRODUCED),
        ([RESET, COMPLETED], Conclusion.REPRODUCED),
        ([COMPLETED, COMPLETED], Conclusion.NOT_REPRODUCED),
        ([RESET, STALLED], Conclusion.INCONCLUSIVE),
        ([COMPLETED, INCONCLUSIVE], Conclusion.INCONCLUSIVE),
        ([], Conclusion.INCONCLUSIVE),
    ],
)
def test_one_trial_without_proof_leaves_the_result_open(outcomes: list[Outcome], conclusion: Conclusion) -> None:
    assert result(*outcomes).result is conclusion


@pytest.mark.parametrize(
    ("outcome", "fixes", "expect", "code"),
    [
        (RESET, (), None, 0),
        (COMPLETED, (), None, 1),
        (COMPLETED, (), "not-reproduced", 0),
        (RESET, (), "not-reproduced", 1),
        (COMPLETED, ("drop-invalid",), None, 0),
        (RESET, ("drop-invalid",), None, 1),
        (STALLED, ("drop-invalid",), None, 3),
        (INCONCLUSIVE, (), "reproduced", 3),
    ],
)
def test_exit_codes(outcome: Outcome, fixes: tuple[str, ...], expect: str | None, code: int) -> None:
    assert result(outcome, fixes=fixes).exit_code(expect) == code


@pytest.mark.parametrize(
    ("expected", "outcomes", "expect", "code"),
    [
        (COMPLETED, [COMPLETED, COMPLETED], None, 0),
        (COMPLETED, [COMPLETED, STALLED], None, 1),
        (RESET, [STALLED], None, 1),
        (RESET, [STALLED], "not-reproduced", 3),
        (STALLED, [STALLED], None, 0),
        (STALLED, [STALLED, RESET], None, 1),
        (STALLED, [STALLED, INCONCLUSIVE], None, 3),
        (RESET, [], None, 3),
    ],
)
def test_exit_codes_of_what_a_document_expects(
    expected: Outcome, outcomes: list[Outcome], expect: str | None, code: int
) -> None:
    assert replace(result(*outcomes), expected=expected).exit_code(expect) == code


# --- the window's arithmetic -----------------------------------------------------------------------------------------


def reached(events: Mapping[str, Event]) -> Reach | None:
    return reached_by(FlowEvents(story.FLOW, events.values()))


def test_the_edge_is_conntracks_and_what_sticks_out_widens_it() -> None:
    events = story.reset()
    assert isinstance(events["reply"], Packet)
    # 7305 acknowledged with a closed window, which counts as one byte; 2304 + 767 bytes are the widest window.
    assert reached(events) == Reach(events["reply"], beyond_bytes=4767, forgiven_bytes=3070, edge=7306)


def test_a_segment_that_starts_at_the_edge_is_never_past_it() -> None:
    events = story.without(story.reset(), "reply")
    long = story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 7306, 1005, 60_000)
    events["burst"] = story.packet(60, "server", "out", long)
    assert reached(events) == Reach(None, beyond_bytes=60_000, forgiven_bytes=2303, edge=7306)


def test_a_window_is_scaled_only_if_both_sides_said_so() -> None:
    events = story.without(story.reset(), "burst", "reply", "fill acked")
    for name in ("syn", "syn,ack"):
        event = events[name]
        assert isinstance(event, Packet)
        events[name] = replace(event, segment=replace(event.segment, wscale=2))
    assert reached(events) == Reach(
        None, beyond_bytes=2304 - 4 * 2304, forgiven_bytes=4 * 2304 - 1, edge=5001 + 4 * 2304
    )
    event = events["syn,ack"]
    assert isinstance(event, Packet)
    events["syn,ack"] = replace(event, segment=replace(event.segment, wscale=None))
    assert reached(events) == Reach(None, beyond_bytes=0, forgiven_bytes=2303, edge=5001 + 2304)


def test_without_a_handshake_there_is_no_edge() -> None:
    assert reached(story.without(story.reset(), "syn")) is None


# --- the rate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 1, 0.0, 0.793451),
        (1, 1, 0.206549, 1.0),
        (0, 20, 0.0, 0.161125),
        (10, 20, 0.299298, 0.700702),
        (20, 20, 0.838875, 1.0),
        (1, 10, 0.017876, 0.404150),  # as R has it: prop.test(1, 10, correct=FALSE)
    ],
)
def test_the_confidence_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-6)


def test_only_trials_that_told_count_for_the_rate() -> None:
    told = story.judge(story.observed(story.dropped()))
    untold = story.judge(
        story.observed(story.dropped(), failed_observers=((ObserverId(ObserverKind.ENTRIES, "client-node"), "gone"),)),
        story.prove,
    )
    assert untold.outcome is Outcome.INCONCLUSIVE
    result = Result("t", "c", "l", (), "6", (told, untold))
    assert result.reset_rate() == wilson_interval(0, 1)
    assert Result("t", "c", "l", (), "6", (untold,)).reset_rate() is None


# --- observers that must have seen the connection --------------------------------------------------------------------


def test_an_observer_that_died_is_named() -> None:
    trial = story.judge(
        story.observed(
            story.dropped(), failed_observers=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), "Bad file"),)
        ),
        story.prove,
    )
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("all of the packets on client/eth0: observing ended early (Bad file)",),
    )


def test_open_observers_of_entries_and_traces_must_have_seen_the_connection() -> None:
    names = (ObserverId(ObserverKind.ENTRIES, "client-node"), ObserverId(ObserverKind.TRACES, "client-node"))
    trial = story.judge(story.observed(story.dropped(), lost=tuple((name, 0) for name in names)))
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        (
            "the connection's new entry, among conntrack's events on client-node",
            "the client's SYN, among the rules' traces on client-node",
        ),
    )
