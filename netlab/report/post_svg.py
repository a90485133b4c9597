"""The Kubernetes post's figure: the five packets of a trial between client, node and server, as SVG. Pure.

It is the picture of `text.py` for a page: each packet has its words above its arrow, and lifelines are drawn beside
arrows alone, so that no text stands on one. It is as wide as a phone and grows with the page.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from netlab.analysis.result import Evidence, Link, Outcome, TrialResult
from netlab.record.events import ACK, ConntrackEvent, InvalidReason, Packet, SocketEvent, flag_names
from netlab.record.words import endpoint
from netlab.report import lanes
from netlab.report.markup import Markup, path, tag, text_width, wrap_text

_WIDTH, _MARGIN = 366, 6
_INDENT = _MARGIN + 16
_SIZE = 11
_LINE, _ARROW = 14.0, 22.0
_HALF_HEAD = 58


def figure(trial: TrialResult, made: Sequence[str] = ()) -> Markup | None:
    """The picture of a trial's evidence; None where it has no packet. made is what made its RST, in words."""
    drawn = _Figure(trial, made)
    return drawn.markup() if drawn.packets else None


class _Figure:
    """Filled from top to bottom; `_y` is where the next row begins."""

    def __init__(self, trial: TrialResult, made: Sequence[str]) -> None:
        self._trial, self._flow, self._made = trial, trial.flow, made
        self._seen: dict[Link, Evidence] = {}
        for piece in trial.evidence:
            self._seen.setdefault(piece.link, piece)
        self._middle = lanes.middle(trial)
        left, right = _HALF_HEAD + _MARGIN, _WIDTH - _HALF_HEAD - _MARGIN
        self._x = (left, (left + right) / 2, right)
        self._y = 0.0
        self._drawn: list[Markup] = []
        self._spoken: list[str] = []
        self.packets = 0
        self._heads()
        self._rows()
        self._ends()

    def markup(self) -> Markup:
        said = "; ".join(self._spoken)
        return tag(
            "svg",
            tag("title", "The packets that decided it"),
            tag("desc", said),
            *self._drawn,
            class_="post",
            role="img",
            aria_label=f"The packets that decided it. {said}.",
            viewBox=f"0 0 {_WIDTH} {self._y + 4:g}",
            width=_WIDTH,
            height=self._y + 4,
        )

    def _heads(self) -> None:
        flow = self._flow
        vip = f"VIP {flow.vip}" if flow.translated and self._middle == flow.node else ""
        heads = ((flow.client, str(flow.client_address)), (self._middle, vip), (flow.server, str(flow.endpoint)))
        cells = []
        for name, label in heads:
            names = [(line, "head") for line in wrap_text(name, 2 * _HALF_HEAD - 8, 13)]
            cells.append(names + [(line, "small") for line in wrap_text(label, 2 * _HALF_HEAD - 4, 12)])
        for x, cell in zip(self._x, cells, strict=True):
            for row, (line, kind) in enumerate(cell):
                self._drawn.append(tag("text", line, class_=kind, x=x, y=14 + row * 15, text_anchor="middle"))
        self._y = 8 + 15.0 * max(map(len, cells))

    def _rows(self) -> None:
        flow, seen = self._flow, self._seen
        if piece := seen.get(Link.REQUEST):
            self._packet(1, piece, f"the client talks to {'the Service' if flow.translated else flow.server}")
        if piece := seen.get(Link.REQUEST_TRANSLATED):
            self._packet(2, piece, f"NAT on {self._middle}: the destination becomes {flow.endpoint}", nat=True)
        if piece := seen.get(Link.STALE_WINDOW):
            self._remark(f"{piece.event.netns}: {piece.note}")
        if (piece := seen.get(Link.OBSERVED)) and isinstance(piece.event, ConntrackEvent) and piece.note:
            self._remark(piece.note)
        arrival = seen.get(Link.REPLY_UNTRANSLATED) or seen.get(Link.REPLY_TRANSLATED)
        if piece := seen.get(Link.REPLY):
            # Only of a trial that was seen whole can one say what did not happen in it.
            ended = self._trial.outcome in (Outcome.COMPLETED, Outcome.STALLED)
            self._packet(3, piece, *self._verdict(piece), dropped=arrival is None and ended)
        if arrival is not None:
            self._packet(4, arrival, self._arrived(arrival), nat=arrival.link is Link.REPLY_TRANSLATED)
        if piece := seen.get(Link.RST):
            came = seen.get(Link.RST_AT_SERVER) or seen.get(Link.RST_AT_CLIENT)
            self._packet(5, piece, *self._rst(piece), to=came)

    def _verdict(self, reply: Evidence) -> Iterator[str]:
        """What conntrack made of the reply, and why: in numbers where they are known, else in conntrack's words."""
        invalid, adopted = self._seen.get(Link.INVALID), self._seen.get(Link.ADOPTED)
        if invalid is not None:
            said = invalid.event.text if isinstance(invalid.event, InvalidReason) else invalid.note
            yield f"INVALID on {invalid.event.netns}{': ' if reply.note or said else ''}{reply.note or said}"
        elif adopted is not None:
            yield f"conntrack on {adopted.event.netns}: {adopted.note}"
        if reply.note and invalid is None:
            yield reply.note

    def _arrived(self, arrival: Evidence) -> str:
        if arrival.link is Link.REPLY_TRANSLATED:
            return "NAT gave it the VIP as its source: the client takes it"
        assert isinstance(arrival.event, Packet)
        reply = arrival.event.segment.dst == self._flow.client_address
        end = "source" if reply else "destination"
        if Link.INVALID in self._seen:
            return f"NAT skips what is INVALID: its {end} stays"
        return f"NAT {'has nothing to translate' if Link.ADOPTED in self._seen else 'left it alone'}: its {end} stays"

    def _rst(self, rst: Evidence) -> Sequence[str]:
        assert isinstance(rst.event, Packet)
        if Link.REPLY_UNTRANSLATED in self._seen and not rst.event.segment.flags & ACK:
            return [f"{rst.event.netns} knows no such connection: its seq is the ack of 4"]
        return self._made

    def _ends(self) -> None:
        for link, netns in ((Link.SERVER_RESET, self._flow.server), (Link.CLIENT_RESET, self._flow.client)):
            piece = self._seen.get(link)
            if piece is not None and isinstance(piece.event, SocketEvent):
                name = errno.errorcode.get(piece.event.errno, str(piece.event.errno))
                self._remark(f"{netns}'s socket: {name}, {self._at(piece)}", "bad")
        got, sent = self._trial.bytes_received, self._trial.payload_bytes
        if sent:
            self._remark(f"the client got {got:,} of {sent:,} bytes: {self._trial.ended}")

    def _remark(self, text: str, kind: str = "note") -> None:
        self._lines(text, f"remark {kind}", _MARGIN)
        self._y += 2
        self._spoken.append(text)

    def _packet(
        self,
        number: int,
        piece: Evidence,
        *notes: str,
        to: Evidence | None = None,
        nat: bool = False,
        dropped: bool = False,
    ) -> None:
        """A packet's words, and its arrow below them: in its lane, or as far as where it was seen to arrive."""
        assert isinstance(piece.event, Packet)
        self.packets += 1
        flow, segment = self._flow, piece.event.segment
        ahead, right = lanes.to_server(flow, piece.event), lanes.beyond(flow, piece.event)
        ends = f"{endpoint(segment.src, segment.sport)} → {endpoint(segment.dst, segment.dport)}"
        flags = ",".join(flag_names(segment.flags))
        said = f"{flags}, seq {segment.seq if piece.relative_seq is None else piece.relative_seq}"
        if segment.payload_bytes:
            said += f", {segment.payload_bytes:,} bytes"
        invalid = number == 3 and Link.INVALID in self._seen
        kind = "bad" if invalid or dropped or number == 5 else "note"
        self._drawn += [
            tag("text", str(number), class_="number", x=_MARGIN, y=self._y + 12),
            tag("text", ends, class_="ends", x=_INDENT, y=self._y + 12),
            tag("text", self._at(piece), class_="small", x=_WIDTH - _MARGIN, y=self._y + 12, text_anchor="end"),
        ]
        self._y += _LINE + 1
        self._lines("; ".join([said, *notes]), kind)
        start, end = (self._x[1], self._x[2]) if right else (self._x[0], self._x[1])
        start, end = (start, end) if ahead else (end, start)
        if to is not None and isinstance(to.event, Packet) and lanes.beyond(flow, to.event) is not right:
            end = self._x[2] if ahead else self._x[0]
        self._arrow(start, end, kind, nat=nat, dropped=dropped, invalid=invalid, rst=number == 5)
        self._spoken.append(f"{number}: {ends}, {said}{''.join(f', {note}' for note in notes)}")

    def _lines(self, text: str, kind: str, x: float = _INDENT) -> None:
        for line in wrap_text(text, _WIDTH - _MARGIN - x, _SIZE):
            self._drawn.append(tag("text", line, class_=kind, x=x, y=self._y + 11))
            self._y += _LINE

    def _arrow(
        self, start: float, end: float, kind: str, *, nat: bool, dropped: bool, invalid: bool, rst: bool
    ) -> None:
        y, ahead = self._y + _ARROW / 2, 1 if end > start else -1
        for place, x in enumerate(self._x):
            if place != 1 or self._middle:
                self._drawn.append(tag("line", class_="lifeline", x1=x, x2=x, y1=y - 9, y2=y + 9))
        tip = end - 9 * ahead
        shape = [(end, y), (tip, y - 4.5), (tip, y + 4.5)]
        self._drawn += [
            tag("line", class_=f"shaft {kind}{' rst' if rst else ''}", x1=start, x2=tip, y1=y, y2=y),
            *([] if dropped else [tag("path", class_=f"tip {kind}", d=path(shape, closed=True))]),
        ]
        if invalid or dropped:
            self._pill(end, y, " · ".join([*(["INVALID"] if invalid else []), *(["DROP"] if dropped else [])]), "bad")
        elif nat:
            self._pill(start, y, "NAT", "good")
        self._y += _ARROW

    def _pill(self, x: float, y: float, word: str, kind: str) -> None:
        half = text_width(word, _SIZE) / 2 + 6
        self._drawn += [
            tag("rect", class_=f"pill {kind}", x=x - half, y=y - 8, width=2 * half, height=16, rx=8),
            tag("text", word, class_=f"pill-text {kind}", x=x, y=y + 4, text_anchor="middle"),
        ]

    def _at(self, piece: Evidence) -> str:
        return f"{(piece.event.time_ns - self._trial.started_ns) / 1e6:+,.1f} ms"
