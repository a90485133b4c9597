"""What a run showed, in one sentence: the first thing that a page says. Pure."""

from __future__ import annotations

from netlab.analysis.result import Claim, Conclusion, Outcome, Result

_SAYS = {
    Outcome.RESET: ("the connection is reset", "the connection is still reset"),
    Outcome.RESET_BY_PEER: ("the peer itself resets the connection", "the peer itself still resets the connection"),
    Outcome.RESET_IN_HANDSHAKE: (
        "the connection is reset in its handshake",
        "the connection is still reset in its handshake",
    ),
    Outcome.REFUSED: ("the connection is refused", "the connection is still refused"),
    Outcome.SYN_UNANSWERED: ("the connection is never answered", "the connection is still never answered"),
    Outcome.HALF_CLOSED: ("the connection stays half closed", "the connection still stays half closed"),
    Outcome.STALLED: ("the connection stalls", "the connection stalls"),
    Outcome.COMPLETED: ("the connection survives", "the connection survives"),
}
"""What became of the connection: without a fix, and where fixes were to prevent it."""


def sentence(result: Result) -> str:
    """The outcome of all trials: "With be-liberal the connection survives in 20 of 20 trials."."""
    total = len(result.trials)
    if not total:
        return "No trial was run."
    fixes = " and ".join(result.fixes)
    prefix = f"With {fixes} " if fixes else ""
    if (found := result.per_thousand()) and result.result is not Conclusion.INCONCLUSIVE:
        if not found.resets:
            return _capital(f"{prefix}none of {found.connections:,} connections is reset.")
        return _capital(f"{prefix}{found.resets:,} of {found.connections:,} connections are reset.")
    if result.claim_is is Claim.UNDECIDED:
        unclear = sum(trial.outcome in (Outcome.INCONCLUSIVE, Outcome.STALLED) for trial in result.trials)
        return _capital(f"{prefix}nothing is proved: {_of(unclear, total)} can't be judged.")
    otherwise = sum(bool(trial.refuted) and trial.outcome is Outcome.INCONCLUSIVE for trial in result.trials)
    if otherwise:
        return _capital(f"{prefix}the kernel does otherwise than the document expects in {_of(otherwise, total)}.")
    counts = [(outcome, result.count(outcome)) for outcome in Outcome if result.count(outcome)]
    (main, count), *others = sorted(counts, key=lambda pair: (pair[0] is Outcome.INCONCLUSIVE, -pair[1]))
    told = _SAYS[main][bool(fixes) and result.prevents is False and main is result.plain]
    claimed = result.expected is not None or not fixes  # else the document says nothing of these fixes
    against = ", against the claim" if claimed and result.claim_is is Claim.REFUTED else ""
    rest = "".join(f", {other} {outcome}" for outcome, other in others)
    return _capital(f"{prefix}{told} in {_of(count, total)}{rest}{against}.")


def _of(count: int, total: int) -> str:
    return "the one trial" if total == 1 else f"{count:,} of {total:,} trials"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
