"""One connection's TCP segments as arrows: their words and kinds, and what befell them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from netlab.analysis.findings import Findings
from netlab.analysis.paths import PacketPath, window_probes
from netlab.record.events import ACK, FIN, RST, SYN, Segment, flag_names
from netlab.record.flow import Flow
from netlab.record.words import endpoint
from netlab.report.sequence.diagram import Arrow
from netlab.report.sequence.fate import Fates
from netlab.report.sequence.frame import Frame
from netlab.report.sequence.notes import Told
from netlab.report.sequence.numbers import Numbers
from netlab.report.sequence.sightings import seen


def arrows(findings: Findings, flow: Flow, frame: Frame, told: Told) -> Iterator[Arrow]:
    """Every segment of the connection, in the order in which they were first seen."""
    paths = findings.timeline.of(flow)
    of = {each.path.number: each for found in findings.of(flow) for each in found.packets}
    probes, numbers = window_probes(paths), Numbers(paths)
    fates = Fates(findings.timeline, flow, probes, frame, told)
    for path in paths:
        account = fates.of(of[path.number])
        pieces = list(frame.pieces(seen(path)))
        yield Arrow(
            path=path,
            start=frame.columns[path.hops[0].netns],
            end=frame.columns[path.last.netns],
            came_to=frame.came_to(path.hops),
            words=tuple(_words(path, numbers)),
            kind=(
                "window probe" if path.number in probes else _noun(path.segment),
                account.qualifier or ("again" if path.copy_of else ""),
            ),
            marks=tuple(sorted(account.marks, key=lambda mark: mark.column)),
            notes=tuple(dict.fromkeys((*(piece.note for piece in pieces if piece.note), *account.notes))),
            links=tuple(dict.fromkeys(piece.link for piece in pieces)),
        )


def related(findings: Findings, other: Flow, frame: Frame) -> Iterator[Arrow]:
    """The segments of a connection that another made conntrack expect, its numbers relative to its own."""
    whose = endpoint(other.client_address, other.client_port), endpoint(other.vip, other.port)
    expected = f"a connection of its own, {whose[0]} to {whose[1]}, which conntrack expected: RELATED"
    for index, arrow in enumerate(arrows(findings, other, frame, Told())):
        notes = (expected, *arrow.notes) if index == 0 else arrow.notes
        yield replace(arrow, words=(*arrow.words, f"(:{other.port})"), notes=notes)


def _words(path: PacketPath, numbers: Numbers) -> Iterator[str]:
    segment = path.segment
    yield ",".join(flag_names(segment.flags)) or "no flags"
    yield f"seq {numbers.seq(path)}"
    if segment.flags & ACK:
        yield f"ack {numbers.ack(path)}"
    if segment.payload_bytes:
        yield f"len {segment.payload_bytes}"
    if path.to_server and not segment.flags & RST:
        yield f"win {numbers.window_bytes(segment)}"
    if path.copy_of is not None:
        yield f"(again: #{path.copy_of})"


def _noun(segment: Segment) -> str:
    for flag, noun in ((RST, "RST"), (SYN, "SYN"), (FIN, "FIN")):
        if segment.flags & flag:
            return noun
    if segment.payload_bytes:
        return "data segment"
    return "ACK" if segment.window else "window-0 ACK"
