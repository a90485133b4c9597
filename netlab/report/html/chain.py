"""The chain of causes of the drawn trial, step by step in plain words. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netlab.analysis.explanation import Step
from netlab.analysis.result import Result, TrialResult
from netlab.record.words import endpoint
from netlab.report.html.drawn import Drawn
from netlab.report.markup import Markup, join, tag
from netlab.report.page import bullets, folded


def render(result: Result, drawn: Drawn) -> Markup:
    """The section, each step with its moment and the way to its packet."""
    story, trial, flow = drawn.story, drawn.trial, drawn.trial.flow
    items = [tag("li", step.text, *_at(step, drawn)) for step in story.chain]
    items.append(tag("li", _end(trial)))
    ends = f"{endpoint(flow.client_address, flow.client_port)} to {endpoint(flow.vip, flow.port)}"
    one = ", one connection of its load" if result.trials[drawn.number - 1].load else ""
    lead = f"Trial {drawn.number} of {len(result.trials)}{one}, {ends}."
    also = [tag("h3", "Also"), bullets(story.notes)] if story.notes else []
    steps = tag("ol", *items, class_="chain")
    return folded("chain", "What happened, step by step", tag("p", lead), steps, *also, is_open=True)


def steps(drawn: Drawn) -> list[Markup]:
    """The chain without ways to packets, for a page that doesn't draw them all."""
    return [*(join([step.text]) for step in drawn.story.chain), _end(drawn.trial)]


def _end(trial: TrialResult) -> Markup:
    received, sent = trial.bytes_received, trial.payload_bytes
    got = f": the client got {received:,} of {sent:,} bytes" if sent else ""
    return join([tag("strong", trial.ended), f"{got}."])


def _at(step: Step, drawn: Drawn) -> Iterator[Markup]:
    """When a step was, and the way to its packet."""
    if step.time_ns is not None:
        yield tag("span", f" {drawn.ms(step.time_ns)} ms", class_="quiet")
    if step.number in drawn.shown:
        yield join([" ", tag("a", f"see #{step.number}", href=f"#packet-{step.number}")])
