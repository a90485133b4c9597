"""The top of the page: the headline, what it means, and the facts of the run. Pure."""

from __future__ import annotations

from typing import assert_never

from netlab.analysis.result import Claim, Outcome, Result
from netlab.model import Topology
from netlab.report import text
from netlab.report.markup import Markup, tag
from netlab.report.page import facts

_CHAIN = "Each link of the chain, from the reply to the reset socket, was seen in the kernel, in order."
_UNHARMED = (
    "What the experiment does was seen to take place in every trial, no connection was reset, and every byte arrived."
)


def render(result: Result, topology: Topology | None) -> Markup:
    """The answer; topology is the lab's, None where its text can't be read."""
    fixes = ", ".join(result.fixes) or "none"
    about = [
        ("Experiment", result.experiment),
        ("Claim", result.claim),
        ("Lab", result.lab),
        ("Fixes", fixes),
        ("Kernel", result.kernel),
        ("Trials", "; ".join([text.account(result), *(text.load(result) or text.rate(result))])),
    ]
    if result.expected is not None:
        about.append(("Expected", text.expectation(result)))
    if result.explanation:
        about.insert(2, ("Explanation", " ".join(result.explanation.split())))
    if topology and topology.description:
        about.insert(3, ("About the lab", topology.description))
    missing = [
        tag("li", f"{piece} (in {count} of {len(result.trials)} trials)")
        for piece, count in (*text.missing(result).items(), *text.refuted(result).items())
    ]
    return tag(
        "section",
        tag("h1", text.headline(result), id="result", class_=result.result, tabindex=-1),
        tag("p", _meaning(result), class_="meaning"),
        *([tag("ul", *missing, class_="missing")] if missing else []),
        facts(about),
        aria_labelledby="result",
    )


def _meaning(result: Result) -> str:
    """What the headline means, in a sentence or two."""
    if not result.trials:
        return "No trial was run."
    ended = ", ".join(f"{result.count(outcome)} {outcome}" for outcome in Outcome if result.count(outcome))
    match result.claim_is:
        case Claim.UNDECIDED:
            return "This run proves nothing either way. What is missing:"
        case Claim.REFUTED:
            return f"What the document claims was seen not to be so: {ended}, expected {_wanted(result)}."
        case Claim.CONFIRMED if result.count(Outcome.RESET) == len(result.trials):
            return _CHAIN
        case Claim.CONFIRMED if result.count(Outcome.COMPLETED) == len(result.trials):
            return _UNHARMED
        case Claim.CONFIRMED:
            return f"What the document claims was seen: {ended}."
        case _:
            assert_never(result.claim_is)


def _wanted(result: Result) -> str:
    if result.expected is not None:
        return str(result.expected)
    return "no reset" if result.fixes else "reset"
