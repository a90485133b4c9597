"""A run whose log lines are not what the window model computes says so."""

from __future__ import annotations

from dataclasses import replace

import stories
import story
from hops import Hops

from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.result import Evidence, Link, Outcome, TrialResult
from netlab.analysis.timeline import build
from netlab.record.events import ACK, PSH, InvalidReason
from netlab.record.recording import Recording

WRONG = "SEQ is over upper bound 4242 (over the window of the receiver)"


def trials(recording: Recording) -> tuple[TrialResult, ...]:
    """One trial, whose evidence is the log's first line."""
    reason = next(event for event in recording.events if isinstance(event, InvalidReason))
    trial = TrialResult(Outcome.RESET, 0.1, story.START_NS, story.FLOW, (Evidence(Link.INVALID, reason),), 2304, 10_000)
    return (trial,)


def test_what_agrees_is_left_as_it_is() -> None:
    recording = stories.reset()
    assert crosscheck(trials(recording), build(recording)) == (trials(recording), ())


def test_a_log_line_that_was_not_expected_has_a_note() -> None:
    recording = stories.reset()
    changed = replace(
        recording,
        events=tuple(
            replace(event, text=WRONG) if isinstance(event, InvalidReason) and event.text == stories.OVER else event
            for event in recording.events
        ),
    )
    held, sentences = crosscheck(trials(changed), build(changed))
    differs = f'the kernel logged "{WRONG}" where the model expects "{stories.OVER}"'
    assert sentences == (f"trial 1, seq 8000 on client-node: {differs}",)
    (evidence,) = held[0].evidence
    assert evidence.note == f"not as computed: {differs}"


def test_a_log_line_that_never_came_is_told() -> None:
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    recording = hops.recording()
    _, sentences = crosscheck(trials(stories.reset()), build(recording), 21)
    assert sentences == (
        f'trial 21, seq 8000 on client-node: the model expects "{stories.OVER}", and the kernel logged nothing',
    )
