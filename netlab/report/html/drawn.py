"""The trial that the page draws: its diagram, its explanation, and the ways to its packets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netlab.analysis.explain import explain
from netlab.analysis.explanation import Explanation
from netlab.analysis.findings import Findings
from netlab.analysis.result import Link, Result, TrialResult
from netlab.record.events import Witness
from netlab.record.words import endpoint
from netlab.report import post_svg
from netlab.report.markup import Markup, join, tag
from netlab.report.sequence import answer, build
from netlab.report.sequence.diagram import Arrow, Ladder
from netlab.report.sequence.sightings import moment, seen, within_ns


@dataclass(frozen=True, slots=True)
class Drawn:
    """One of a run's trials, or of its load's connections; number is the trial's, from 1.

    shown are the packets that are not folded, numbers has the packet of each event by its `moment`. made is what made
    the RST of the evidence, in words; nothing where there is none, or it isn't known.
    """

    number: int
    trial: TrialResult
    ladder: Ladder
    story: Explanation
    shown: frozenset[int]
    numbers: Mapping[tuple[object, ...], int]
    made: tuple[str, ...]

    def figure(self) -> Markup | None:
        """The packets that decided it; None where there is none."""
        return post_svg.figure(self.trial, self.made)

    def ms(self, time_ns: int) -> str:
        """A moment in milliseconds since the trial began: "+95.495"."""
        return self.ladder.ms(time_ns)

    def packet_link(self, event: Witness) -> Markup:
        """The way to the packet that an event is, with a space after it; empty where there is none."""
        number = self.numbers.get(moment(event))
        if number is None or number not in self.shown:
            return Markup("")
        return join([tag("a", f"#{number}", href=f"#packet-{number}"), " "])


def draw(result: Result, findings: Findings) -> Drawn | None:
    """The trial that the text report draws; None where no trial was run."""
    if not result.trials:
        return None
    number, trial = result.shown()
    flow = trial.flow
    ladder = build(findings, flow, trial)
    numbers = {moment(event): path.number for path in findings.timeline.of(flow) for event in seen(path)}
    return Drawn(
        number,
        trial,
        ladder,
        explain(findings, endpoint(flow.client_address, flow.client_port), within_ns=within_ns(trial)),
        frozenset(row.number for row in ladder.rows if isinstance(row, Arrow)),
        numbers,
        tuple(_made(trial, findings, numbers)),
    )


def _made(trial: TrialResult, findings: Findings, numbers: Mapping[tuple[object, ...], int]) -> list[str]:
    rsts = (numbers.get(moment(piece.event)) for piece in trial.evidence if piece.link is Link.RST)
    number = next(rsts, None)
    found = (each.of(number) for each in findings.of(trial.flow) if number is not None)
    rst = next(filter(None, found), None)
    return [] if rst is None else answer.reset(rst)
