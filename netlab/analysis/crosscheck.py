"""A run's log lines held against the window model: where they differ, the Result says so. Pure.

Only what the model needs is looked at: the packets that came into the nodes, conntrack's events and its log.
"""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.result import Evidence, Link, Result
from netlab.analysis.timeline import build
from netlab.conntrack.agreement import Disagreement
from netlab.record.events import ConntrackEvent, Direction, InvalidReason, Packet
from netlab.record.recording import Recording


def hold(result: Result, recording: Recording) -> tuple[Result, tuple[str, ...]]:
    """The Result with a note on each reason that the model does not expect, and all disagreements in sentences.

    recording is that of the run: its flows are those of the trials, in order.
    """
    nodes = {netns for flow in recording.flows for netns in (flow.node, flow.server_node) if netns is not None}
    events = tuple(
        event
        for event in recording.events
        if event.netns in nodes
        and (
            isinstance(event, InvalidReason | ConntrackEvent)
            or (isinstance(event, Packet) and event.direction is Direction.IN)
        )
    )
    timeline = build(replace(recording, events=events, in_part=True))
    paths = {path.number: path for path in timeline.paths}
    trials = {trial.flow: number for number, trial in enumerate(result.trials, 1)}
    differs: dict[int, Disagreement] = {}
    sentences = []
    for number, disagreement in timeline.disagreements:
        path = paths[number]
        differs |= {id(reason): disagreement for reason in path.reasons}
        trial = trials.get(path.flow)
        seen = f"seq {disagreement.packet.segment.seq} on {disagreement.packet.netns}"
        sentences.append(f"{f'trial {trial}' if trial else 'another connection'}, {seen}: {disagreement}")

    def noted(piece: Evidence) -> Evidence:
        found = differs.get(id(piece.event)) if piece.link is Link.INVALID else None
        return piece if found is None else replace(piece, note=f"not as computed: {found}")

    judged = tuple(replace(trial, evidence=tuple(map(noted, trial.evidence))) for trial in result.trials)
    return replace(result, trials=judged), tuple(sentences)
