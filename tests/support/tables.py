"""A hand-made matrix in which cells stand in every way, for tests of what is printed of it."""

from __future__ import annotations

from dataclasses import replace

import story

from netlab.analysis.result import Outcome, TrialResult
from netlab.capabilities.capability import Capability
from netlab.matrix import Cell, Column, Matrix, Row

NO_NETEM = "needs netem: Specified qdisc kind is unknown."
LOST = "3 events lost by the packets on client/eth0"
FIXES = ("plain", "drop-invalid", "be-liberal", "drop-invalid-where-not-liberal")


def trial(
    outcome: Outcome, *missing: str, invalid: int = 0, retransmits: int = 0, duration_s: float = 0.25
) -> TrialResult:
    """A trial that ended so; a reset has the whole chain as its evidence."""
    found = story.judge(story.observed(story.reset(), bytes_received=2304, ended=False))
    return replace(
        found,
        outcome=outcome,
        evidence=found.evidence if outcome is Outcome.RESET else (),
        missing=missing,
        invalid=invalid,
        retransmits=retransmits,
        duration_s=duration_s,
    )


RESET = trial(Outcome.RESET, invalid=10)
COMPLETED = trial(Outcome.COMPLETED, retransmits=26, duration_s=1.25)
STALLED = trial(Outcome.STALLED, "the end of the stream: 2,304 of 10,000 bytes in 10.0 s", invalid=120, duration_s=10.0)
INCONCLUSIVE = trial(Outcome.INCONCLUSIVE, LOST)

_PLAYED = {
    "window-overrun": (
        Cell("", "", Outcome.RESET, (RESET,)),
        Cell("", "", Outcome.COMPLETED, (COMPLETED,)),
        Cell("", "", Outcome.COMPLETED, (INCONCLUSIVE,)),
        Cell("", "", None, (COMPLETED,)),
    ),
    "path-flip": (
        Cell("", "", Outcome.RESET, (RESET,)),
        Cell("", "", Outcome.COMPLETED, (STALLED,)),
        Cell("", "", Outcome.COMPLETED, failed="its process was ended by signal 9"),
        Cell("", "", Outcome.STALLED, skipped="the lab has no such fix"),
    ),
    "late-retransmit": tuple(Cell("", "", Outcome.COMPLETED, skipped=NO_NETEM) for _ in FIXES),
}


def matrix(*experiments: str, settings: tuple[tuple[str, str], ...] = ()) -> Matrix:
    """The rows of these experiments, or all of them."""
    names = experiments or tuple(_PLAYED)
    return Matrix(
        lab="kube-proxy-reset",
        kernel="6.18.44",
        rootless=False,
        settings=settings,
        trials=1,
        capabilities=(Capability("netem", False, "Specified qdisc kind is unknown."),),
        rows=tuple(Row(name, f"What {name} shows.", f"Why {name}\nis so.\n") for name in names),
        columns=tuple(Column(fix, "" if fix == "plain" else f"what {fix} does") for fix in FIXES),
        cells=tuple(
            replace(cell, experiment=name, fix=fix)
            for name in names
            for fix, cell in zip(FIXES, _PLAYED[name], strict=True)
        ),
    )


def with_trials(made: Matrix, *trials: TrialResult) -> Matrix:
    """The same with other trials in its first cell."""
    first, *others = made.cells
    return replace(made, cells=(replace(first, trials=trials), *others), trials=len(trials))
