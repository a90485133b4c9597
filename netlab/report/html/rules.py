"""The way of the packets through the rules, or the rules themselves, and conntrack's entry. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netlab.kubeproxy import ruleset
from netlab.model import Topology
from netlab.record.events import ConntrackEvent
from netlab.record.recording import Recording
from netlab.report.html.drawn import Drawn
from netlab.report.markup import Markup, tag
from netlab.report.page import code, folded, table
from netlab.report.sequence.diagram import Arrow, Ladder


def render(drawn: Drawn, recording: Recording, topology: Topology | None) -> Markup:
    """The way through the rules, where it was traced; else the rules themselves."""
    ladder = drawn.ladder
    traced = [arrow for arrow in ladder.arrows() if arrow.path.trace and arrow.number in drawn.shown]
    shown = [_trace(arrow) for arrow in traced if arrow.evidence or _chooses(arrow)]
    others = [_trace(arrow) for arrow in traced if not (arrow.evidence or _chooses(arrow))]
    if others:
        shown.append(tag("details", tag("summary", f"{len(others):,} more packets"), *others))
    if not traced:
        shown.append(
            tag("p", "The way of the packets through the rules was not recorded. These are the rules of the lab:")
        )
        shown += _ruleset(topology, ladder.flow.node) if ladder.flow.node else []
    entries = [
        (drawn.ms(e.time_ns), e.netns, e.change, e.tcp_state or "", ", ".join(e.status))
        for e in recording.events
        if isinstance(e, ConntrackEvent) and _is_of(e, ladder)
    ]
    if entries:
        shown += [
            tag("h3", "Conntrack's entry"),
            table(("ms", "Namespace", "Change", "TCP state", "Status"), entries),
        ]
    return folded("rules", "The way through the rules", *shown)


def _ruleset(topology: Topology | None, node: str) -> Iterator[Markup]:
    found = ruleset(topology, node) if topology else None
    if found is None:
        yield tag("p", f"{node} has no rules of kube-proxy's.")
        return
    yield tag("details", tag("summary", f"nft rules on {node}"), code(found.nft(replace=False)))


def _chooses(arrow: Arrow) -> bool:
    """Whether a rule translated it: NAT's rules see the first packet of a connection alone."""
    return any("dnat" in step.rule.lower() for step in arrow.path.trace)


def _trace(arrow: Arrow) -> Markup:
    """Its way, rule by rule; a chain that ends without a verdict says nothing, only what its policy decides."""
    rows = [
        (step.netns, f"{step.family} {step.table} {step.chain}", step.rule or "(the chain's policy)", step.verdict)
        for step in arrow.path.trace
        if step.rule or step.verdict not in ("continue", "return")
    ]
    return tag(
        "details",
        tag("summary", tag("b", f"#{arrow.number} "), " ".join(arrow.words)),
        table(("Namespace", "Chain", "Rule", "Verdict"), rows),
        open=arrow.evidence or _chooses(arrow),
    )


def _is_of(event: ConntrackEvent, ladder: Ladder) -> bool:
    header = event.tuple_orig
    return (header.src, header.sport, header.dst, header.dport) in ladder.flow.legs()
