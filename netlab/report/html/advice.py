"""What to do: the fixes that help against the experiment's cause, how they are set, what they cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from netlab.analysis.result import Claim, Link, Outcome, Result
from netlab.kubeproxy.remedies import REMEDIES
from netlab.model import Topology, UserFix
from netlab.report.markup import Markup, join, tag
from netlab.report.page import code

_SHOWN = 2
"""So many fixes are told in full at once; the others can be unfolded."""
_AGAINST_INVALID = ("drop-invalid", "be-liberal")


def render(result: Result, topology: Topology | None) -> Markup:
    """The part of the first screen; empty where the document says nothing of fixes, kernels or what to read."""
    advice = result.advice
    said = [*_remedy(result), *_fixes(result, topology), *_kernels(result)]
    if not said and not advice.see:
        return Markup("")
    return tag(
        "div",
        tag("h2", "What to do", id="advice"),
        *said,
        *_read(result),
        class_="advice",
        role="region",
        aria_labelledby="advice",
    )


def tried(result: Result, others: Iterable[Result]) -> Result:
    """The run with what was seen of fixes beside it, each alone, of which the document says nothing."""
    told = dict(result.advice.outcomes)
    seen = {
        other.fixes[0]: Outcome.COMPLETED if other.prevents else other.shown()[1].outcome
        for other in others
        if len(other.fixes) == 1 and other.prevents is not None
    }
    outcomes = (*told.items(), *(each for each in seen.items() if each[0] not in told))
    return replace(result, advice=replace(result.advice, outcomes=outcomes))


def _fixes(result: Result, topology: Topology | None) -> Iterator[Markup]:
    """The fixes that help, those in use first; those that don't; which to try where the document names none."""
    outcomes = result.advice.outcomes
    if outcomes and result.claim_is is Claim.REFUTED:
        yield tag("p", "The document's claim did not hold here, so none of its fixes is advised.")
        return
    if result.plain is Outcome.COMPLETED:
        if result.claim_is is Claim.CONFIRMED:
            yield tag("p", "Nothing: on this kernel it does no harm, with a fix or without one.")
        return
    if not outcomes and not result.fixes and topology and topology.kube_proxy.nodes and _skipped_by_nat(result):
        yield tag("p", "NAT skipped an INVALID packet. The document names no fix; to try those against INVALID, add")
        yield code(f"--compare {','.join(_AGAINST_INVALID)}")
    if not outcomes or result.plain is None:
        return
    helps = [name for name, outcome in outcomes if outcome is Outcome.COMPLETED]
    helps.sort(key=lambda name: name not in result.fixes)
    own = {fix.name: fix for fix in topology.fixes} if topology else {}
    if not helps:
        yield tag("p", "None of the fixes helps against this cause.")
    told = [tag("li", *_fix(name, own, in_use=name in result.fixes)) for name in helps]
    if told:
        yield tag("ul", *told[:_SHOWN], class_="fixes")
    if told[_SHOWN:]:
        names = ", ".join(helps[_SHOWN:])
        more = tag("summary", f"Helps too: {names}")
        yield tag("details", more, tag("ul", *told[_SHOWN:], class_="fixes"))
    others = [f"{name} ({outcome})" for name, outcome in outcomes if outcome is not Outcome.COMPLETED]
    if others:
        yield tag("p", f"Doesn't help: {', '.join(others)}.")


def _skipped_by_nat(result: Result) -> bool:
    """Whether a reset was seen that an INVALID packet led to."""
    if result.claim_is is not Claim.CONFIRMED or not result.count(Outcome.RESET):
        return False
    return any(piece.link is Link.INVALID for piece in result.shown()[1].evidence)


def _fix(name: str, own: Mapping[str, UserFix], *, in_use: bool) -> Iterator[Markup]:
    """How it is set, which kube-proxy has it, what it costs."""
    yield tag("strong", name)
    if in_use:
        yield tag("span", " as in this run", class_="quiet")
    if name in REMEDIES:
        remedy = REMEDIES[name]
        if remedy.command:
            yield code(remedy.command)
        links = [_link(*each) for each in remedy.see]
        where = "On each node; kube-proxy: " if remedy.command else "kube-proxy: "
        yield tag("p", tag("b", where), remedy.kube_proxy, *([" (", join(links, ", "), ")"] if links else []))
        yield tag("p", tag("b", "Costs: "), remedy.cost)
    elif name in own:
        yield tag("p", own[name].summary)
        if own[name].command:
            yield code(own[name].command)
        if own[name].cost:
            yield tag("p", tag("b", "Costs: "), own[name].cost)


def _remedy(result: Result) -> Iterator[Markup]:
    harmed = result.plain is not Outcome.COMPLETED and result.claim_is is not Claim.REFUTED
    if result.advice.remedy and harmed:
        yield tag("p", tag("b", "Without a fix: "), result.advice.remedy)


def _kernels(result: Result) -> Iterator[Markup]:
    if result.advice.kernels:
        yield tag("p", tag("b", "Kernels: "), f"{result.advice.kernels}. This one is {result.kernel}.")


def _read(result: Result) -> Iterator[Markup]:
    if result.advice.see:
        yield tag("p", tag("b", "Read: "), join((_link(*each) for each in result.advice.see), "; "))


def _link(text: str, address: str) -> Markup:
    """A link; a bundle from elsewhere may name anything as its address, and only the web's are links."""
    return tag("a", text, href=address, rel="noreferrer") if address.startswith("https://") else join([text])
