"""A load's connections from the events of `story.py`, each with a client's port of its own, and judged together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import story

from netlab.analysis.findings import analyse
from netlab.analysis.judge_load import Member, by_connection, judge_load
from netlab.analysis.result import Proof, Result, TrialResult
from netlab.record.events import ACK, InvalidReason, Packet, Segment, SocketEvent, Witness
from netlab.record.flow import Leg


def of_port(events: Mapping[str, Witness], port: int) -> Iterator[Witness]:
    """The story's events as those of another client's port; its canaries are left out."""
    for name, event in events.items():
        if name.startswith("canary"):
            continue
        if isinstance(event, SocketEvent):
            own = event.netns == "client"
            yield replace(event, local_port=port if own else 8080, peer_port=80 if own else port)
        else:
            assert isinstance(event, Packet | InvalidReason)
            yield replace(event, segment=_with_port(event.segment, port))


def _with_port(segment: Segment, port: int) -> Segment:
    own = story.FLOW.client_port
    return replace(
        segment,
        sport=port if segment.sport == own else segment.sport,
        dport=port if segment.dport == own else segment.dport,
    )


def canaries() -> Iterator[Witness]:
    return (event for name, event in story.accepted().items() if name.startswith("canary"))


def late(port: int) -> list[Witness]:
    """A segment's copy overtakes it on the way to the client's node, whose conntrack logs something about it."""
    original = replace(story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 9001, 1005, 100), ip_id=7)
    copy = replace(original, ip_id=8)
    events: list[Witness] = [
        story.packet(70, "server", "out", original),
        story.packet(72, "server", "out", copy),
        story.packet(73, "client-node", "in", copy),
        story.packet(79, "client-node", "in", original),
        story.reason(79, "client-node", "SEQ is under lower bound 1 (already ACKed data retransmitted)", original),
    ]
    return list(of_port({str(number): event for number, event in enumerate(events)}, port))


def member(port: int, *, received: int = story.PAYLOAD_BYTES, ended: bool = True, whole: bool = False) -> Member:
    return Member(replace(story.FLOW, client_port=port), received, True, ended, 0.1, whole)


def without_stimulus(events: Mapping[str, Witness]) -> dict[str, Witness]:
    return story.without(events, "stale window")


def judged(members: list[Member], events: Iterable[Witness], proof: Proof = Proof(())) -> TrialResult:  # noqa: B008
    everything = (*canaries(), *events)
    observed = story.observed(everything, flow=replace(story.FLOW, client_port=0))
    each = by_connection([member.flow for member in members], everything)
    findings = analyse(story.recording_of(observed, *(member.flow for member in members)))
    return judge_load(observed, members, each, proof, findings, 30)


def mixed() -> TrialResult:
    """One connection is reset, one completes, one stalls."""
    return judged(
        [member(40001, received=2304, ended=False, whole=True), member(40002), member(40003, ended=False)],
        [
            *of_port(without_stimulus(story.reset()), 40001),
            *of_port(without_stimulus(story.accepted()), 40002),
            *late(40002),
            *of_port(without_stimulus(story.accepted()), 40003),
        ],
    )


def run_of(*trials: TrialResult) -> Result:
    return Result("load", "A load resets.", "kube-proxy-reset", (), "6.18.44", trials)
