"""All trials of the run, a row each. Pure."""

from __future__ import annotations

from netlab.analysis.result import Result
from netlab.report import text
from netlab.report.markup import Markup, tag
from netlab.report.page import folded, table


def render(result: Result) -> Markup:
    """The section: how each ended, what it took, and what it lacks."""
    rows = [
        (
            str(number),
            trial.ended,
            f"{trial.duration_s:.3f} s",
            f"{trial.bytes_received:,} of {trial.payload_bytes:,}",
            "; ".join(trial.missing),
        )
        for number, trial in enumerate(result.trials, 1)
    ]
    grid = table(("Trial", "Outcome", "Took", "Bytes", "Missing"), rows)
    return folded("trials", "All trials", tag("details", tag("summary", text.how_ended(result)), grid))
