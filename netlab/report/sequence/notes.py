"""Notes about packets of every protocol: what NAT changed, which rule dropped it; some are told only once. Pure."""

from __future__ import annotations

from netlab.analysis.paths import Rewrite
from netlab.record.events import TraceStep
from netlab.record.words import endpoint


class Told:
    """The notes of one connection that are told of the first packet only."""

    def __init__(self) -> None:
        self._notes: set[str] = set()

    def once(self, note: str) -> list[str]:
        """The note, unless it was told before."""
        if note in self._notes:
            return []
        self._notes.add(note)
        return [note]


def translation(rewrite: Rewrite) -> str:
    """What NAT changed: "NAT on node: destination 10.0.0.1:80 becomes 10.1.0.2:8080"."""
    before, after = rewrite.before, rewrite.after
    changes = [
        f"{which} {endpoint(*old)} becomes {endpoint(*new)}"
        for which, old, new in (("source", before[:2], after[:2]), ("destination", before[2:], after[2:]))
        if old != new
    ]
    where = f" on {rewrite.netns}" if rewrite.netns else " where it was not observed"
    return f"NAT{where}: {', '.join(changes)}"


def drop(step: TraceStep) -> str:
    """The rule that dropped a packet, or its chain's policy."""
    return f"DROP: {step.netns}, chain {step.chain}: {step.rule or 'policy'}"
