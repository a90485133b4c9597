"""The evidence for each link of the chain, as a table. Pure."""

from __future__ import annotations

from netlab.record.events import DatagramPacket, InvalidReason, Packet, SocketEvent
from netlab.report.html.drawn import Drawn
from netlab.report.markup import Markup, join
from netlab.report.page import folded, table
from netlab.report.words import LINKS, evidence_words


def render(drawn: Drawn) -> Markup:
    """The section of the drawn trial's evidence."""
    rows = []
    for piece in drawn.trial.evidence:
        event = piece.event
        interface = event.ifname if isinstance(event, Packet | DatagramPacket | InvalidReason) else ""
        rows.append(
            (
                LINKS[piece.link],
                event.netns,
                interface or "(socket)" if isinstance(event, SocketEvent) else interface,
                f"{drawn.ms(event.time_ns)} ms",
                join([drawn.packet_link(event), evidence_words(piece)]),
                piece.note,
            )
        )
    return folded(
        "evidence",
        "Evidence",
        table(("What it shows", "Namespace", "Interface", "Time", "Packet", "In numbers"), rows),
    )
