"""A run's log lines held against the window model: where they differ, its trials say so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netlab.analysis.result import Evidence, Link, TrialResult
from netlab.analysis.timeline import Timeline
from netlab.conntrack.agreement import Disagreement
from netlab.record.events import Event


def crosscheck(
    judged: Sequence[TrialResult], timeline: Timeline, first: int = 1
) -> tuple[tuple[TrialResult, ...], tuple[str, ...]]:
    """The trials with a note on each reason that the model does not expect, and all disagreements in sentences.

    first is the first trial's number.
    """
    paths = {path.number: path for path in timeline.paths}
    trials = {trial.flow.headers()[0]: number for number, trial in enumerate(judged, first)}
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

    noted_trials = tuple(replace(trial, evidence=tuple(map(noted, trial.evidence))) for trial in judged)
    return noted_trials, tuple(sentences)
