"""The connections of a load judged one by one, each as a trial is; and what they are together. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netlab.analysis.findings import Findings
from netlab.analysis.judge import Observed, counted, doubts_about, invalid_packets, judge_flow
from netlab.analysis.late import late_segments
from netlab.analysis.result import Load, Outcome, Proof, TrialResult
from netlab.record.events import (
    ConntrackEvent,
    Event,
    InvalidReason,
    Packet,
    PacketDrop,
    Segment,
    SocketClosed,
    SocketEvent,
    TraceStep,
    Tuple,
)
from netlab.record.flow import Flow, FlowEvents

_SHOWN = 3
"""So many kinds of what is missing are told, the most frequent ones first."""


@dataclass(frozen=True, slots=True)
class Member:
    """One connection of a load, and what its client got. whole: all of its packets were observed, not only its ends."""

    flow: Flow
    received_bytes: int
    intact: bool
    ended: bool
    duration_s: float
    whole: bool = False


def by_connection(flows: Sequence[Flow], events: Iterable[Event]) -> tuple[FlowEvents, ...]:
    """The events of each of these connections, which differ in nothing but the client's port."""
    found: dict[int, list[Event]] = defaultdict(list)
    if flows:
        for event in events:
            found[client_port(event, flows[0])].append(event)
    return tuple(FlowEvents(flow, found.get(flow.client_port, ())) for flow in flows)


def client_port(event: Event, like: Flow) -> int:
    """The client's port of the connection that an event belongs to; 0 for an event of none, or of another Service's."""
    if isinstance(event, SocketEvent | SocketClosed):
        return event.local_port if event.netns == like.client else event.peer_port
    header: Segment | Tuple | None = None
    if isinstance(event, ConntrackEvent):
        header = event.tuple_orig
    elif isinstance(event, Packet | PacketDrop | InvalidReason | TraceStep):
        header = event.segment
    if header is None:
        return 0
    return header.sport if header.src == like.client_address else header.dport


def judge_load(
    observed: Observed,
    members: Sequence[Member],
    each: Sequence[FlowEvents],
    proof: Proof,
    findings: Findings,
    cpu_percent: int | None = None,
    unlimited: str = "",
) -> TrialResult:
    """What a trial with a load proves. observed is all of it, its flow nobody's; each are the events of each
    member, findings those of a recording that has them.

    It is reset if any connection was, the proof is there, and none is unclear; else completed or stalled.
    """
    judged, late, logged = [], 0, 0
    for member, events in zip(members, each, strict=True):
        found = tuple(late_segments(events, member.flow.node)) if member.flow.node else ()
        judged.append(_judge(observed, member, events, Proof(found[:1]), findings))
        late += len(found)
        logged += len(events.logged(member.flow.node))
    others = tuple(each for each in judged if each.outcome is not Outcome.COMPLETED)
    load = Load(len(judged) - len(others), others, None, late, logged, cpu_percent, unlimited)
    alone = replace(observed, connects=False)
    missing = list(doubts_about(alone, FlowEvents(observed.flow, observed.events))) or _unclear(load)
    if missing:
        outcome = Outcome.INCONCLUSIVE
    elif load.count(Outcome.RESET) and proof.bears_reset:
        outcome = Outcome.RESET
    elif proof.missing or not judged:
        outcome, missing = Outcome.INCONCLUSIVE, [proof.missing or "a connection"]
    elif stalled := load.count(Outcome.STALLED):
        outcome, missing = Outcome.STALLED, [f"the end of the stream in {stalled:,} of {len(judged):,} connections"]
    else:
        outcome = Outcome.COMPLETED
    drawn = _drawn(members, judged, outcome)
    if drawn is not None:
        drawn = replace(drawn, duration_s=observed.duration_s)
    return TrialResult(
        outcome=outcome,
        duration_s=observed.duration_s,
        started_ns=observed.started_ns,
        flow=drawn.flow if drawn else observed.flow,
        evidence=drawn.evidence if drawn else (),
        bytes_received=sum(member.received_bytes for member in members),
        payload_bytes=observed.payload_bytes * len(members),
        lost=sum(count for _, count in observed.lost),
        missing=tuple(missing),
        invalid=invalid_packets(observed),
        retransmits=counted(observed, "Tcp.RetransSegs"),
        load=replace(load, drawn=drawn),
    )


def _judge(observed: Observed, member: Member, events: FlowEvents, proof: Proof, findings: Findings) -> TrialResult:
    own = Observed(
        flow=member.flow,
        events=(),
        lost=(),
        canaries=(),
        payload_bytes=observed.payload_bytes,
        bytes_received=member.received_bytes,
        intact=member.intact,
        ended=member.ended,
        started_ns=observed.started_ns,
        duration_s=member.duration_s,
    )
    return judge_flow(own, events, proof, findings)


def _unclear(load: Load) -> list[str]:
    """What the connections that nobody can judge lack, each with their number."""
    unclear = Counter(
        piece for other in load.others if other.outcome is Outcome.INCONCLUSIVE for piece in other.missing
    )
    told = [f"in {count:,} of {load.connections:,} connections: {piece}" for piece, count in unclear.most_common()]
    return told if len(told) <= _SHOWN else [*told[:_SHOWN], f"and {len(told) - _SHOWN} things more"]


def _drawn(members: Sequence[Member], judged: Sequence[TrialResult], outcome: Outcome) -> TrialResult | None:
    """The connection to show: one that was observed whole, of these one that ended as the trial, with most evidence."""
    whole = [each for member, each in zip(members, judged, strict=True) if member.whole]
    return max(whole, key=lambda each: (each.outcome is outcome, len(each.evidence)), default=None)
