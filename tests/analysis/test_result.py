"""What trials say together: whether the claim holds, whether a fix prevents it, and the exit code."""

from __future__ import annotations

import pytest
import story

from netlab.analysis.result import Claim, Outcome, Result, TrialResult

RESET, COMPLETED, STALLED, UNCLEAR = Outcome.RESET, Outcome.COMPLETED, Outcome.STALLED, Outcome.INCONCLUSIVE


def result(
    *outcomes: Outcome,
    fixes: tuple[str, ...] = (),
    expected: Outcome | None = None,
    plain: Outcome | None = None,
    refuted: str = "",
) -> Result:
    """A run of trials with these outcomes; the first of them refutes the claim if said so."""
    trials = tuple(
        TrialResult(outcome, 0.1, story.START_NS, story.FLOW, (), 0, 0, refuted="" if number else refuted)
        for number, outcome in enumerate(outcomes)
    )
    return Result("window-overrun", "", "lab", fixes, "6.18.44", trials, expected=expected, plain=plain)


@pytest.mark.parametrize(
    ("given", "claim"),
    [
        (result(), Claim.UNDECIDED),
        (result(RESET, RESET), Claim.CONFIRMED),
        (result(RESET, COMPLETED), Claim.REFUTED),
        (result(RESET, UNCLEAR), Claim.UNDECIDED),
        (result(COMPLETED, UNCLEAR), Claim.UNDECIDED),
        (result(STALLED), Claim.UNDECIDED),
        (result(COMPLETED, fixes=("f",)), Claim.CONFIRMED),
        (result(RESET, fixes=("f",)), Claim.REFUTED),
        (result(STALLED, expected=STALLED), Claim.CONFIRMED),
        (result(STALLED, expected=COMPLETED), Claim.REFUTED),
        (result(COMPLETED, UNCLEAR, expected=RESET), Claim.REFUTED),
        (result(RESET, UNCLEAR, expected=RESET), Claim.UNDECIDED),
        (result(RESET, RESET, refuted="no"), Claim.REFUTED),
        (result(RESET, UNCLEAR, refuted="no"), Claim.REFUTED),
        (result(UNCLEAR, RESET, refuted="no"), Claim.REFUTED),
    ],
)
def test_a_claim_holds_if_every_trial_shows_it(given: Result, claim: Claim) -> None:
    assert given.claim_is is claim


@pytest.mark.parametrize(
    ("given", "prevents"),
    [
        (result(COMPLETED, fixes=("f",), plain=RESET), True),
        (result(COMPLETED, RESET, fixes=("f",), plain=RESET, expected=COMPLETED), False),
        (result(STALLED, fixes=("f",), plain=RESET, expected=STALLED), False),
        (result(COMPLETED, plain=RESET, expected=COMPLETED), None),
        (result(COMPLETED, fixes=("f",)), None),
        (result(COMPLETED, fixes=("f",), plain=COMPLETED), None),
        (result(COMPLETED, UNCLEAR, fixes=("f",), plain=RESET), None),
    ],
)
def test_a_fix_prevents_what_would_happen_without_it(given: Result, prevents: bool | None) -> None:
    assert given.prevents is prevents
