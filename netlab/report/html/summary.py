"""The first screen: the outcome in a sentence, the packets that decided it, what to do; the facts folded. Pure."""

from __future__ import annotations

from typing import assert_never

from netlab.analysis.result import Claim, Conclusion, Outcome, Result
from netlab.model import Topology
from netlab.report import text
from netlab.report.html import advice
from netlab.report.html.drawn import Drawn
from netlab.report.markup import Markup, tag
from netlab.report.page import facts
from netlab.report.sentence import sentence

_CHAIN = "Every step from the untranslated packet to the reset socket was seen in the kernel, in order."
_UNHARMED = "The experiment's steps took place in every trial, and every byte arrived."


def render(result: Result, topology: Topology | None, drawn: Drawn | None) -> Markup:
    """The first screen; topology is the lab's, None where its text can't be read."""
    missing = [
        tag("li", f"{piece} (in {count} of {len(result.trials)} trials)")
        for piece, count in (*text.missing(result).items(), *text.refuted(result).items())
    ]
    picture = drawn.figure() if drawn else None
    beside = [
        *([tag("figure", picture, _caption(result, drawn), class_="post")] if picture and drawn else []),
        *filter(None, [advice.render(result, topology)]),
    ]
    return tag(
        "section",
        tag("p", text.headline(result), class_=f"verdict {tone(result)}"),
        tag("h1", sentence(result), id="result", class_=tone(result), tabindex=-1),
        tag("p", _meaning(result), class_="meaning"),
        *([tag("ul", *missing, class_="missing")] if missing else []),
        *([tag("div", *beside, class_="beside")] if beside else []),
        tag("details", tag("summary", "About this run"), facts(_about(result, topology)), class_="about"),
        aria_labelledby="result",
    )


def tone(result: Result) -> str:
    """The class that colours a headline: a connection that stalls is not reset, but it does not survive either."""
    survived = result.count(Outcome.COMPLETED) == len(result.trials)
    if result.result is Conclusion.NOT_REPRODUCED and not survived:
        return "harmed"
    return result.result


def _caption(result: Result, drawn: Drawn) -> Markup:
    one = ", one connection of its load" if result.trials[drawn.number - 1].load else ""
    return tag(
        "figcaption", f"Trial {drawn.number} of {len(result.trials)}{one}, kernel {result.kernel}, as it was seen."
    )


def _about(result: Result, topology: Topology | None) -> list[tuple[str, str]]:
    """The facts of the run. What a document claims and explains is of a lab without a fix."""
    plain = " without a fix" if result.fixes else ""
    about = [("Experiment", result.experiment), (f"Claim{plain}", result.claim)]
    if result.explanation:
        about.append((f"Why{plain}", " ".join(result.explanation.split())))
    about.append(("Lab", result.lab))
    if topology and topology.description:
        about.append(("About the lab", topology.description))
    about += [
        ("Fixes", ", ".join(result.fixes) or "none"),
        ("Kernel", result.kernel),
        ("Trials", "; ".join([text.account(result), *(text.load(result) or text.rate(result))])),
    ]
    if result.expected is not None:
        about.append(("Expected", text.expectation(result)))
    return about


def _meaning(result: Result) -> str:
    """What the headline means, in a sentence or two."""
    if not result.trials:
        return "No trial was run."
    ended = ", ".join(f"{result.count(outcome)} {outcome}" for outcome in Outcome if result.count(outcome))
    match result.claim_is:
        case Claim.UNDECIDED:
            return "It can't be judged, because this is missing:"
        case Claim.REFUTED if text.refuted(result):
            return "The document expects this, and it was not so:"
        case Claim.REFUTED:
            return f"The document expects {_wanted(result)}; seen: {ended}."
        case Claim.CONFIRMED if result.count(Outcome.RESET) == len(result.trials):
            return _CHAIN
        case Claim.CONFIRMED if result.count(Outcome.COMPLETED) == len(result.trials):
            return _UNHARMED
        case Claim.CONFIRMED:
            return f"As the document expects: {ended}."
        case _:
            assert_never(result.claim_is)


def _wanted(result: Result) -> str:
    if result.expected is not None:
        return str(result.expected)
    return "no reset" if result.fixes else "reset"
