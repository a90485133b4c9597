"""A Result and its Recording as one HTML file: the lab, the packets, the window, the rules, the evidence. Pure.

All of it can be read without the script, `report.js`, which only shows a packet's details where the packet is. Each
section has a file of its own here; the page around them is from `page.py`, the pictures are from `ladder_svg.py`,
`chart.py` and `graph.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.analysis.findings import Findings
from netlab.analysis.result import Result
from netlab.errors import NetlabError
from netlab.model import Topology
from netlab.record.recording import Recording
from netlab.report import text
from netlab.report.html import (
    chain,
    drawn,
    evidence,
    lab,
    load,
    packets,
    repeat,
    rules,
    summary,
    trials,
    unseen,
    window,
)
from netlab.report.linking import linked
from netlab.report.markup import Markup
from netlab.report.packets import Written
from netlab.report.page import document


def render(result: Result, findings: Findings, capture: Written | None = None) -> str:
    """The whole file. The trial that is drawn is the one that the text report draws; capture has its packets."""
    title = f"{text.headline(result)}: {result.experiment} in {result.lab}"
    sections = [section for section in _sections(result, findings, capture) if section]
    return document(title, "netlab: what the kernel did", linked(sections), script="report.js")


def _sections(result: Result, findings: Findings, capture: Written | None) -> Iterator[Markup]:
    """From the answer to its proof; a section with nothing to say is empty."""
    recording = findings.timeline.recording
    topology, unreadable = _topology(recording)
    trial = drawn.draw(result, findings)
    yield summary.render(result, topology, trial)
    yield load.render(result)
    if trial:
        yield chain.render(result, trial)
        yield packets.render(trial.ladder, len(findings.timeline.of(trial.ladder.flow)), capture)
        yield window.render(trial.ladder, recording)
        yield rules.render(trial, recording, topology)
        yield evidence.render(trial)
    yield lab.render(topology, unreadable, [column.netns for column in trial.ladder.columns] if trial else [])
    yield unseen.render(recording, trial.story if trial else None)
    yield trials.render(result)
    yield repeat.render(result, recording)


def _topology(recording: Recording) -> tuple[Topology | None, str]:
    """The lab as it was built; None, and why, where this netlab can't read it."""
    try:
        return recording.spec(), ""
    except NetlabError as error:
        return None, str(error)
