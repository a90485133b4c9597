"""A run's log lines held against the window model: where they differ, the Result says so. Pure."""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.result import Evidence, Link, Result
from netlab.analysis.timeline import Timeline
from netlab.conntrack.agreement import Disagreement
from netlab.record.events import Event


def crosscheck(result: Result, timeline: Timeline) -> tuple[Result, tuple[str, ...]]:
    """The Result with a note on each reason that the model does not expect, and all disagreements in sentences."""
    paths = {path.number: path for path in timeline.paths}
    trials = {trial.flow.headers()[0]: number for number, trial in enumerate(result.trials, 1)}
    differs: dict[Event, Disagreement] = {}
    sentences = []
    for number, disagreement in timeline.disagreements:
        path = paths[number]
        differs |= dict.fromkeys(path.reasons, disagreement)
        trial = trials.get(path.flow.headers()[0])
        seen = f"seq {disagreement.packet.segment.seq} on {disagreement.packet.netns}"
        sentences.append(f"{f'trial {trial}' if trial else 'another connection'}, {seen}: {disagreement}")

    def noted(piece: Evidence) -> Evidence:
        found = differs.get(piece.event) if piece.link is Link.INVALID else None
        return piece if found is None else replace(piece, note=f"not as computed: {found}")

    judged = tuple(replace(trial, evidence=tuple(map(noted, trial.evidence))) for trial in result.trials)
    return replace(result, trials=judged), tuple(sentences)
