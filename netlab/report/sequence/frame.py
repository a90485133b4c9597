"""What all arrows of a diagram are drawn by: the columns, the topology's own tables, the trial's evidence. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netlab.analysis.paths import Hop
from netlab.analysis.result import Evidence
from netlab.record.events import DatagramPacket, TraceStep, Witness
from netlab.report.sequence.diagram import Mark
from netlab.report.sequence.sightings import moment

_ONE_STATE = re.compile(r"\bct state (new|established|related|invalid|untracked)(?!,)\b")
"""What a rule says that asks for one state of conntrack's."""


@dataclass(frozen=True, slots=True)
class Frame:
    """columns has each namespace's, own_tables namespace, family and name, evidence each piece by its `moment`."""

    columns: Mapping[str, int]
    own_tables: frozenset[tuple[str, str, str]]
    evidence: Mapping[tuple[object, ...], Evidence]

    def mark(self, netns: str, word: str) -> Mark:
        """A word at a namespace."""
        return Mark(self.columns[netns], word)

    def came_to(self, hops: Sequence[Hop] | Sequence[DatagramPacket]) -> frozenset[int]:
        """The columns of the namespaces that saw a packet after the one that sent it."""
        sender = hops[0].netns
        return frozenset(self.columns[hop.netns] for hop in hops if hop.netns != sender)

    def states(self, trace: Iterable[TraceStep]) -> list[Mark]:
        """The states of conntrack's that rules of the topology's own tables found it in, where they ask for one."""
        found: dict[Mark, None] = {}
        for step in trace:
            own = (step.netns, step.family, step.table) in self.own_tables
            if own and (asked := _ONE_STATE.search(step.rule)):
                found[self.mark(step.netns, asked[1].upper())] = None
        return list(found)

    def pieces(self, events: Iterable[Witness]) -> Iterator[Evidence]:
        """The evidence that these events are."""
        for event in events:
            if moment(event) in self.evidence:
                yield self.evidence[moment(event)]
