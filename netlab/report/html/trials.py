"""All trials of the run, a row each. Pure."""

from __future__ import annotations

from netlab.analysis.result import Outcome, Result
from netlab.report.markup import Markup, tag
from netlab.report.page import folded, table


def render(result: Result) -> Markup:
    """The section: how each ended, what it took, and what it lacks."""
    rows = [
        (
            str(number),
            trial.outcome,
            f"{trial.duration_s:.3f} s",
            f"{trial.bytes_received:,} of {trial.payload_bytes:,}",
            "; ".join(trial.missing),
        )
        for number, trial in enumerate(result.trials, 1)
    ]
    counts = ", ".join(f"{result.count(outcome)} {outcome}" for outcome in Outcome)
    grid = table(("Trial", "Outcome", "Took", "Bytes", "Missing"), rows)
    return folded("trials", "All trials", tag("details", tag("summary", counts), grid))
