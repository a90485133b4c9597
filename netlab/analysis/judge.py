"""From what was found to what it proves: the findings of a trial to its TrialResult. Pure.

What happened to a trial's connection is `findings.py`'s to say; here it is held against what the trial was to show, and
against what was not observed. A trial is `reset` only if every link of the chain was seen, in order, in the kernel:

    a reply leaves the server and is not translated, and why not is known: conntrack found it INVALID, it had no entry
    for it, or the packet never came to the IP layer; who gets it answers with a RST; the RST comes to the server, whose
    socket waits for just that number, and the socket has ECONNRESET.

It is `completed` only if the client got every byte, and the right ones, whatever did no harm meanwhile. All outcomes
need the experiment's proof that its stimulus took place, and observers that lost nothing and saw the canaries;
everything else is `inconclusive` and says what is missing.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netlab.analysis.evidence import chain_of, merged, numbered, unharmed
from netlab.analysis.findings import ConnectionFinding, Ending, Findings
from netlab.analysis.result import Outcome, Proof, TrialResult
from netlab.record.events import (
    FIN,
    CounterChange,
    Direction,
    Event,
    InvalidReason,
    Packet,
)
from netlab.record.flow import CANARY_PORT, Flow, FlowEvents, Leg
from netlab.record.observers import ObserverId, ObserverKind, describe_observer


@dataclass(frozen=True, slots=True)
class Observed:
    """All there is to judge one trial by.

    lost has observers and how many events each could not deliver; failed_observers those that could not be read to the
    end, each with the reason. canaries are the sequence numbers of the packets sent before and after the trial for
    every observer to see; a load's single connections have none. intact: each byte the client got was the byte sent;
    ended: it then got the end of the stream. failed is what kept the trial from its stimulus, empty if nothing did.
    connects: the experiment makes a connection; transfers: it plays it to the end of its payload. tracked: conntrack on
    the node is to know it. since_ns is when the connection began: what has its addresses before is another's.
    """

    flow: Flow
    events: tuple[Event, ...]
    lost: tuple[tuple[ObserverId, int], ...]
    canaries: tuple[int, ...]
    payload_bytes: int
    bytes_received: int
    intact: bool
    ended: bool
    started_ns: int
    duration_s: float
    failed: str = ""
    failed_observers: tuple[tuple[ObserverId, str], ...] = ()
    connects: bool = True
    transfers: bool = True
    tracked: bool = True
    since_ns: int = 0


_OUTCOMES = {
    Ending.RESET: Outcome.RESET,
    Ending.RESET_BY_PEER: Outcome.RESET_BY_PEER,
    Ending.RESET_IN_HANDSHAKE: Outcome.RESET_IN_HANDSHAKE,
    Ending.REFUSED: Outcome.REFUSED,
}
"""The endings that are outcomes whatever the client got."""


def judge_trial(observed: Observed, proof: Proof, findings: Findings) -> TrialResult:
    """What was found of its connection proves of a trial: the stimulus took place if proof says so.

    findings are those of a recording that has the trial's events.
    """
    return judge_flow(observed, FlowEvents(observed.flow, observed.events), proof, findings)


def judge_flow(observed: Observed, events: FlowEvents, proof: Proof, findings: Findings) -> TrialResult:
    """The same of one connection of many, whose events are given."""
    doubts = list(doubts_about(observed, events))
    found = _found(observed, findings)
    chain, missing_link = chain_of(found, findings)
    outcome, missing = _outcome(observed, found, missing_link)
    if outcome in _UNHARMED:
        evidence = unharmed(found, proof.evidence, transfers=observed.transfers)
    else:
        evidence = merged(chain, proof.evidence)
    borne = proof.bears_reset if outcome is Outcome.RESET else not proof.missing
    # A RST that ended the connection is told even where the claim is refuted; what else became of it is not, since the
    # steps ended early.
    if outcome is not Outcome.INCONCLUSIVE and not borne and (outcome in _UNHARMED or not proof.refuted):
        outcome, missing = Outcome.INCONCLUSIVE, f"{proof.missing}{_ALL_THE_SAME.get(outcome, '')}"
    if doubts:
        outcome = Outcome.INCONCLUSIVE
    return TrialResult(
        outcome=outcome,
        duration_s=observed.duration_s,
        started_ns=observed.started_ns,
        flow=found.flow,
        evidence=tuple(numbered(found.flow, findings, piece) for piece in evidence),
        bytes_received=observed.bytes_received,
        payload_bytes=observed.payload_bytes,
        lost=sum(count for _, count in observed.lost),
        missing=tuple(doubts or ([missing] if missing else [])),
        invalid=invalid_packets(observed),
        retransmits=counted(observed, "Tcp.RetransSegs"),
        refuted="" if doubts else proof.refuted,
    )


_UNHARMED = frozenset((Outcome.COMPLETED, Outcome.STALLED, Outcome.HALF_CLOSED, Outcome.SYN_UNANSWERED))
"""The outcomes in which no RST ended the connection."""

_ALL_THE_SAME = {
    Outcome.RESET: "; the connection was still reset",
    Outcome.RESET_BY_PEER: "; the connection was still reset by its peer",
    Outcome.RESET_IN_HANDSHAKE: "; the connection was still reset in the handshake",
    Outcome.REFUSED: "; the connection was still refused",
}
"""What is told of a connection that ended so without what was to be observed."""


def _found(observed: Observed, findings: Findings) -> ConnectionFinding:
    """What became of the trial's connection: of those with its addresses, the one that began in its time."""
    until_ns = observed.started_ns + round(observed.duration_s * 1e9)
    since_ns = max(observed.since_ns, observed.started_ns)
    found = findings.of(observed.flow)
    own = [
        each
        for each in found
        if each.packets and each.packets[0].path.time_ns <= until_ns and each.packets[-1].path.time_ns >= since_ns
    ]
    return own[-1] if own else found[-1]


def _outcome(observed: Observed, found: ConnectionFinding, missing_link: str) -> tuple[Outcome, str]:
    """What became of the connection, and what is missing from the proof of it."""
    if found.ending in _OUTCOMES and not _harmed_nobody(observed, found):
        return (Outcome.INCONCLUSIVE, missing_link) if missing_link else (_OUTCOMES[found.ending], "")
    for error in (error for error in found.errors if error.time_ns >= observed.since_ns):
        name = errno.errorcode.get(error.errno, str(error.errno))
        if error.errno == errno.ETIMEDOUT and found.ending is Ending.SYN_UNANSWERED:
            continue
        got = f"{observed.bytes_received:,} of {observed.payload_bytes:,} bytes"
        return Outcome.INCONCLUSIVE, f"a cause for {name} at the socket in {error.netns}: {got} had arrived"
    if found.ending is Ending.SYN_UNANSWERED:
        return Outcome.SYN_UNANSWERED, ""
    return _transfer(observed, found)


def _harmed_nobody(observed: Observed, found: ConnectionFinding) -> bool:
    """Whether the client's program got all there was, and no socket an error: the RST came when all was over.

    Of a connection whose ends alone were observed, as in a load, the packets don't tell.
    """
    got_all = observed.intact and observed.ended and observed.bytes_received == observed.payload_bytes
    return observed.transfers and got_all and not any(error.time_ns >= observed.since_ns for error in found.errors)


def invalid_packets(observed: Observed) -> int:
    """How many packets conntrack counted as INVALID in all namespaces together, without the canaries."""
    return max(0, counted(observed, "conntrack.invalid") - _canaries_logged(observed))


def counted(observed: Observed, name: str) -> int:
    """How far a counter went in all namespaces together."""
    return sum(event.by for event in observed.events if isinstance(event, CounterChange) and event.name == name)


def _canaries_logged(observed: Observed) -> int:
    """How many of the INVALID packets were canaries: conntrack logs the reason for each."""
    return sum(isinstance(event, InvalidReason) and event.segment.sport == CANARY_PORT for event in observed.events)


def doubts_about(observed: Observed, events: FlowEvents) -> Iterator[str]:
    """Why nothing can be concluded from this trial, whatever was seen."""
    if observed.failed:
        yield observed.failed
    for observer, count in observed.lost:
        if count:
            yield f"{count} {'event' if count == 1 else 'events'} lost by {describe_observer(observer)}"
    for observer, reason in observed.failed_observers:
        yield f"all of {describe_observer(observer)}: observing ended early ({reason})"
    flow = events.flow
    for when, seq in zip(("before", "after"), observed.canaries, strict=False):
        seen: dict[str, Sequence[Packet | InvalidReason]] = {}
        if flow.node != flow.client:  # a node's own canary gets no farther than its conntrack
            leaving = events.packets(flow.client, Direction.OUT, Leg.CANARY)
            seen[f"the packets leaving {flow.client}"] = leaving
        if flow.node not in (None, flow.client):
            seen[f"the packets reaching {flow.node}"] = events.packets(flow.node, Direction.IN, Leg.CANARY)
        if observed.tracked and flow.node is not None:
            seen[describe_observer(ObserverId(ObserverKind.REASONS, flow.node))] = events.reasons(flow.node, Leg.CANARY)
        for where, canaries in seen.items():
            if all(canary.segment.seq != seq for canary in canaries):
                yield f"the canary {when} the trial, among {where}"
    if observed.connects and not observed.failed:
        if not _packets_with(events, flow.server, Direction.IN, Leg.CLIENT_TO_ENDPOINT):
            yield f"the client's connection, among the packets reaching {flow.server}"
        if events.syn_ack() is None:
            yield f"the SYN,ACK, among the packets leaving {flow.server}"
        if flow.node is None:
            return
        open_observers = {observer for observer, _ in observed.lost}
        entries, traces = (ObserverId(kind, flow.node) for kind in (ObserverKind.ENTRIES, ObserverKind.TRACES))
        if observed.tracked and entries in open_observers and not events.entry_made():
            yield f"the connection's new entry, among {describe_observer(entries)}"
        if traces in open_observers and not events.syn_traced():
            yield f"the client's SYN, among {describe_observer(traces)}"


def _packets_with(events: FlowEvents, netns: str, direction: Direction, leg: Leg, flags: int = 0) -> list[Packet]:
    return [packet for packet in events.packets(netns, direction, leg) if packet.segment.flags & flags == flags]


def _transfer(observed: Observed, found: ConnectionFinding) -> tuple[Outcome, str]:
    """Whether the client got all it was to get, of a connection that nothing ended before its time."""
    if not observed.transfers:
        return (Outcome.HALF_CLOSED if found.ending is Ending.HALF_CLOSED else Outcome.COMPLETED), ""
    flow, got = found.flow, f"{observed.bytes_received:,} of {observed.payload_bytes:,} bytes"
    if not observed.intact:
        return Outcome.INCONCLUSIVE, f"the right bytes: the client got {got}, not all as they were sent"
    if not observed.ended:
        return Outcome.STALLED, f"the end of the stream: {got} in {observed.duration_s:.1f} s"
    if observed.bytes_received != observed.payload_bytes:
        return Outcome.INCONCLUSIVE, f"the whole payload: the client got {got}, then the end of the stream"
    fins = [each.path for each in found.packets if not each.path.to_server and each.path.segment.flags & FIN]
    if not any(path.hops[0].netns == flow.server for path in fins):
        return Outcome.INCONCLUSIVE, f"the server's FIN, among the packets leaving {flow.server}"
    if not any(path.last.netns == flow.client for path in fins):
        return Outcome.INCONCLUSIVE, f"the server's FIN, among the packets reaching {flow.client}"
    return Outcome.COMPLETED, ""
