"""Packets without TCP, UDP, SCTP and ICMP, as arrows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.paths import Rewrite
from netlab.analysis.result import TrialResult
from netlab.analysis.timeline import Timeline
from netlab.record import words
from netlab.record.flow import Flow, ends
from netlab.record.wire import IPPROTO_TCP
from netlab.report.sequence.diagram import Arrow, Mark
from netlab.report.sequence.frame import Frame
from netlab.report.sequence.notes import Told, drop, translation
from netlab.report.sequence.sightings import within_ns


def belonging(timeline: Timeline, flow: Flow, trial: TrialResult | None) -> Iterator[DatagramPath]:
    """The packets without TCP that belong in a connection's diagram: a trial's all, otherwise those about it."""
    legs = flow.legs()
    began_ns, until_ns = within_ns(trial) if trial else (0, 0)
    for path in timeline.datagram_paths:
        about = path.datagram.about
        of_trial = trial and began_ns <= path.time_ns <= until_ns
        if of_trial or (about and about.proto == IPPROTO_TCP and ends(about) in legs):
            yield path


def arrow(path: DatagramPath, frame: Frame, told: Told) -> Arrow:
    """One packet, with NAT's rewrites, the packet that it quotes, and the end of its way."""
    datagram, last = path.datagram, path.last
    header, about = datagram.header, datagram.about
    ports = (f":{header.sport} > :{header.dport}",) if header.sport or header.dport else ()
    marks: list[Mark] = []
    notes: list[str] = []
    if about is not None:
        notes.append(f"about the packet {words.ends(about)} ({words.protocol(about.proto)})")
    for before, after in pairwise(path.hops):
        one, other = before.datagram.header, after.datagram.header
        if one != other and before.netns == after.netns:
            marks.append(frame.mark(before.netns, "NAT"))
            too = ", and the packet that it quotes, too" if about is not None else ""
            notes += told.once(translation(Rewrite(before.netns, ends(one), ends(other))) + too)
    marks += frame.states(path.trace)
    dropping = next((step for step in path.trace if step.verdict == "drop"), None)
    if dropping is not None:
        marks.append(frame.mark(dropping.netns, "DROP"))
        notes.append(drop(dropping))
    elif not path.delivered:
        notes.append(f"not seen after {last.netns}/{last.ifname}")
    pieces = list(frame.pieces(path.hops))
    return Arrow(
        path=path,
        start=frame.columns[path.hops[0].netns],
        end=frame.columns[last.netns],
        came_to=frame.came_to(path.hops),
        words=(*words.kind(datagram).split(), *ports, f"len {datagram.payload_bytes}"),
        kind=(f"{words.kind(datagram)} packet", "dropped" if dropping else ""),
        marks=tuple(sorted(marks, key=lambda mark: mark.column)),
        notes=(*(piece.note for piece in pieces if piece.note), *notes),
        links=tuple(dict.fromkeys(piece.link for piece in pieces)),
    )
