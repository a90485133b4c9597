"""The sequence diagram of the drawn trial, and the details of each of its packets. Pure."""

from __future__ import annotations

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.paths import Hop, PacketPath
from netlab.record.events import DatagramPacket
from netlab.record.words import describe, endpoint, ends
from netlab.report import ladder_svg
from netlab.report.markup import Markup, tag
from netlab.report.packets import Written
from netlab.report.page import figure, folded, table
from netlab.report.sequence.diagram import Arrow, Ladder


def render(ladder: Ladder, own: int, capture: Written | None) -> Markup:
    """The section; own: how many of the packets are the connection's, and not beside it; capture has their frames."""
    shown = [row for row in ladder.rows if isinstance(row, Arrow)]
    total = sum(1 for _ in ladder.arrows())
    beside = " and of what is beside it" if own < total else ""
    drawn = "all are drawn"
    if len(shown) < total:
        drawn = f"{len(shown):,} are drawn, the others are like those beside them"
    lead = (
        f"{total:,} packets of one connection{beside}; {drawn}. "
        "Time runs downwards, in milliseconds since the trial began; sequence numbers are relative, windows in "
        "bytes. "
        "Select a packet for its path and verdicts."
    )
    legend = (
        "NAT: addresses were rewritten there. INVALID: conntrack found the packet so there, and NAT skips it "
        "(thick line). DROP: a rule or the kernel dropped it. LOST: it was seen nowhere after. LOGGED: conntrack noted "
        "something, and let it pass. Dashed line: a RST."
    )
    if any(arrow.marked(state) for arrow in ladder.arrows() for state in ("NEW", "ESTABLISHED", "RELATED")):
        legend += " NEW, ESTABLISHED, RELATED: the state of conntrack's that a rule of the lab's own found it in."
    pictures = ladder_svg.figures(ladder)
    return folded(
        "packets",
        "The packets, across the namespaces",
        tag("p", lead),
        tag("p", legend, class_="legend"),
        *(
            figure(f"Sequence diagram, part {index} of {len(pictures)}", picture, ladder_svg.width(ladder))
            for index, picture in enumerate(pictures, 1)
        ),
        tag(
            "div",
            id="panel",
            class_="panel",
            hidden=True,
            role="region",
            aria_label="The selected packet",
            aria_live="polite",
        ),
        tag(
            "details",
            tag("summary", f"Details of each of the {len(shown):,} packets drawn"),
            *(_detail(ladder, arrow, capture) for arrow in shown),
        ),
        is_open=True,
    )


def _detail(ladder: Ladder, arrow: Arrow, capture: Written | None) -> Markup:
    hops = [
        (
            ladder.ms(hop.time_ns),
            hop.netns,
            hop.ifname,
            hop.direction,
            _ends(hop),
        )
        for hop in arrow.path.hops
    ]
    marks = [
        tag("span", f", {mark.word} at {ladder.columns[mark.column].netns}", class_=mark.word.lower())
        for mark in arrow.marks
    ]
    return tag(
        "details",
        tag("summary", tag("b", f"#{arrow.number} "), " ".join(arrow.words), *marks),
        *(tag("p", note) for note in arrow.notes),
        table(("ms", "Namespace", "Interface", "Way", "Addresses"), hops),
        tag("p", _absolute(arrow.path), _frames(arrow.number, capture), class_="quiet"),
        id=f"packet-{arrow.number}",
        class_="packet-detail",
    )


def _ends(hop: Hop | DatagramPacket) -> str:
    if isinstance(hop, DatagramPacket):
        return ends(hop.datagram.header).replace(">", "→")
    return f"{endpoint(*hop.ends[:2])} → {endpoint(*hop.ends[2:])}"


def _frames(number: int, capture: Written | None) -> str:
    """Where a packet is in the file of the packets."""
    frames = capture.frames.get(number, ()) if capture is not None else ()
    if capture is None or not frames:
        return ""
    return f" In {capture.name}: {'frame' if len(frames) == 1 else 'frames'} {', '.join(map(str, frames))}."


def _absolute(packet: PacketPath | DatagramPath) -> str:
    if isinstance(packet, DatagramPath):
        return f"As it was first seen: {describe(packet.datagram)}, IP id {packet.datagram.ip_id}."
    segment = packet.segment
    return f"Absolute: seq {segment.seq}, ack {segment.ack}, window field {segment.window}, IP id {segment.ip_id}."
