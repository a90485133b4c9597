"""The connections of a load: how they ended in each trial, and each that did not complete. Pure."""

from __future__ import annotations

from netlab.analysis.result import Outcome, Result, TrialResult
from netlab.report import text
from netlab.report.markup import Markup, tag
from netlab.report.page import bullets, section, table
from netlab.report.words import LINKS

_MOST_MEMBERS = 50
"""So many of a load's connections are told one by one."""


def render(result: Result) -> Markup:
    """The section; empty where no trial was a load."""
    loads = [(number, each.load) for number, each in enumerate(result.trials, 1) if each.load is not None]
    if not loads:
        return Markup("")
    outcomes = [outcome for outcome in Outcome if any(load.count(outcome) for _, load in loads)]
    ended = [
        (str(number), f"{load.connections:,}", *(f"{load.count(outcome):,}" for outcome in outcomes))
        for number, load in loads
    ]
    others = [_member(number, other) for number, load in loads for other in load.others]
    shown = others[:_MOST_MEMBERS]
    what = f"the first {len(shown)} of {len(others):,}" if len(shown) < len(others) else f"all {len(others):,}"
    names = ("Trial", "Client's port", "Outcome", "Bytes", "What was seen, in ms since the trial began")
    return section(
        "load",
        "The connections of the load",
        bullets(text.load(result)),
        table(("Trial", "Connections", *(outcome.capitalize() for outcome in outcomes)), ended),
        *(
            [tag("details", tag("summary", f"Those that did not complete: {what}"), table(names, shown))]
            if others
            else []
        ),
    )


def _member(number: int, other: TrialResult) -> tuple[str, ...]:
    """One connection of a load as a row: its evidence in a few words each, or what is missing."""
    seen = [f"{LINKS[p.link]} {(p.event.time_ns - other.started_ns) / 1e6:+,.1f}" for p in other.evidence]
    bytes_of = f"{other.bytes_received:,} of {other.payload_bytes:,}"
    return (
        str(number),
        str(other.flow.client_port),
        other.outcome,
        bytes_of,
        "; ".join([*seen, *(f"missing: {piece}" for piece in other.missing)]),
    )
