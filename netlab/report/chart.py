"""The window chart: the server's data in sequence space, against what the client allowed, as SVG. Pure.

One bar a data packet, from its first byte to its last, packet after packet from left to right (the times stand below:
a burst would be a single line if time were to scale). The stepped line is conntrack's td_maxend at that packet; the
dashed one, where the kernel has it, how far past td_maxend a packet may end and still be let pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netlab.report.markup import Markup, join, path, tag, text_width, wrap_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 26, 84, 146
_PLOT = 300
_BEFORE, _AFTER = 24, 12
"""So many packets are drawn before and after the one that the chart is about."""

_FATES = {"accepted": "accepted", "ignored": "ignored: let pass", "INVALID": "INVALID: not translated"}

_NARROWEST = 800

_PAUSE_MS = 1.0
"""A pause longer than this between two packets is marked."""


@dataclass(frozen=True, slots=True)
class Point:
    """One data packet as conntrack met it; sequence numbers relative to the server's first, unwrapped.

    when_ms counts from the trial's beginning. edge is td_maxend then, forgiven_bytes how far past it a packet may end,
    None where this kernel forgives nothing. fate says what became of it: "accepted", "ignored" or "INVALID". evidence:
    the Result rests on it.
    """

    number: int
    when_ms: float
    seq: int
    end: int
    edge: int
    forgiven_bytes: int | None
    fate: str = "accepted"
    evidence: bool = False

    @property
    def beyond_bytes(self) -> int:
        """How far it ends past the edge; zero or less where it doesn't."""
        return self.end - self.edge


def culprit(points: Sequence[Point]) -> Point | None:
    """The packet that the chart is about: the first INVALID one, else the evidence, if it goes past the edge, else the
    one that goes farthest. None without points."""
    for point in points:
        if point.fate == "INVALID":
            return point
    past = [point for point in points if point.evidence and point.beyond_bytes > 0]
    return max(past or points, key=lambda point: point.beyond_bytes, default=None)


def sentence(point: Point) -> str:
    """What the chart shows, in words."""
    beyond, forgiven = point.beyond_bytes, point.forgiven_bytes
    if beyond <= 0:
        return (
            f"Every packet ended inside the window that the client allowed; #{point.number} came closest to its end "
            f"({-beyond:,} bytes before it)."
        )
    said = f"#{point.number} ends {beyond:,} bytes past what the client allowed"
    if forgiven is not None:
        said += f"; this kernel forgives {forgiven:,}"
    all_the_same = " all the same" if point.fate == "accepted" and beyond > (forgiven or 0) else ""
    return f"{said}: {point.fate}{all_the_same}."


def drawn(points: Sequence[Point]) -> tuple[Markup, int]:
    """The chart around its culprit, and its width, a multiple of 100; points must not be empty."""
    about = culprit(points)
    assert about is not None
    middle = points.index(about)
    chart = _Chart(points[max(middle - _BEFORE, 0) : middle + _AFTER + 1], about)
    return chart.markup(), chart.width


class _Chart:
    def __init__(self, points: Sequence[Point], about: Point) -> None:
        self._points, self._about = points, about
        self._slot = min(max(640 / len(points), 30), 60)
        self.width = -(-int(max(_LEFT + self._slot * len(points) + _RIGHT, _NARROWEST)) // 100) * 100
        limits = [point.edge + (point.forgiven_bytes or 0) for point in points]
        self._low = min(min(point.seq for point in points), min(point.edge for point in points))
        high = max(max(point.end for point in points), *limits, self._low + 1)
        self._step = _step((high - self._low) / 5)
        self._low = self._low // self._step * self._step
        self._high = -(-high // self._step) * self._step

    def markup(self) -> Markup:
        height = _TOP + _PLOT + _BOTTOM
        return tag(
            "svg",
            tag("title", "The server's data and the window that conntrack knows of"),
            tag("desc", sentence(self._about)),
            *self._axis(),
            *self._bars(),
            *self._lines(),
            *self._callout(),
            class_="chart",
            role="img",
            aria_label=f"Window chart. {sentence(self._about)}",
            viewBox=f"0 0 {self.width} {height}",
            width=self.width,
            height=height,
        )

    def _x(self, index: int) -> float:
        return _LEFT + self._slot * index

    def _y(self, number: int) -> float:
        return _TOP + _PLOT * (self._high - number) / (self._high - self._low)

    def _axis(self) -> Iterator[Markup]:
        right = self._x(len(self._points))
        for number in range(self._low, self._high + 1, self._step):
            y = self._y(number)
            yield tag("line", class_="grid", x1=_LEFT, x2=right, y1=y, y2=y)
            yield tag("text", f"{number:,}", class_="small", x=_LEFT - 8, y=y + 4, text_anchor="end")
        base = _TOP + _PLOT
        for index, point in enumerate(self._points):
            x = self._x(index) + self._slot / 2
            yield tag("text", f"#{point.number}", class_="small", x=x, y=base + 18, text_anchor="middle")
            pause = index and point.when_ms - self._points[index - 1].when_ms > _PAUSE_MS
            if pause:
                yield tag("line", class_="pause", x1=self._x(index), x2=self._x(index), y1=_TOP, y2=base + 38)
            if pause or not index:
                yield tag("text", f"{point.when_ms:+.1f}", class_="small", x=x, y=base + 36, text_anchor="middle")
        yield tag("text", "The server's sequence numbers, in bytes", class_="axis", x=8, y=_TOP - 14)
        order = "Packets in the order they were sent, with their times in ms; a dotted line is a pause of over 1 ms"
        yield tag("text", order, class_="axis", x=_LEFT, y=base + 58)

    def _bars(self) -> Iterator[Markup]:
        for index, point in enumerate(self._points):
            top, bottom = self._y(point.end), self._y(point.seq)
            said = f"#{point.number}: bytes {point.seq:,} to {point.end:,}; td_maxend {point.edge:,}; {point.fate}"
            bar = self._bar(point, self._x(index) + self._slot * 0.22, top, self._slot * 0.56, max(bottom - top, 2))
            yield tag("g", tag("title", said), bar)

    def _bar(self, point: Point, x: float, y: float, width: float, height: float) -> Markup:
        kind = {"INVALID": "bad", "ignored": "warn"}.get(point.fate, "good")
        bar = tag("rect", class_=f"bar {kind}", x=x, y=y, width=width, height=height)
        if kind != "bad":
            return bar
        strokes = (path([(x, y), (x + width, y + height)]), path([(x + width, y), (x, y + height)]))
        return join([bar, tag("path", class_="cross", d=" ".join(strokes))])

    def _lines(self) -> Iterator[Markup]:
        y = _TOP + _PLOT + 80
        keys = [("edge", "what the client allowed (td_maxend)")]
        yield tag("path", class_="edge", d=path(self._stairs([point.edge for point in self._points])))
        limits = [point.edge + point.forgiven_bytes for point in self._points if point.forgiven_bytes is not None]
        if len(limits) == len(self._points):
            yield tag("path", class_="limit", d=path(self._stairs(limits)))
            keys.append(("limit", "what conntrack forgives past it"))
        for index, (kind, name) in enumerate(keys):
            x = _LEFT + 300 * index
            yield tag("path", class_=kind, d=path([(x, y), (x + 34, y)]))
            yield tag("text", name, x=x + 42, y=y + 4)
        if self._about.beyond_bytes > 0:
            tone = "bad" if self._about.fate == "INVALID" else "plain"
            yield tag(
                "path",
                class_=f"bracket {tone}",
                d=path([(_LEFT, y + 40), (_LEFT + 6, y + 40), (_LEFT + 6, y + 54), (_LEFT, y + 54)]),
            )
            yield tag(
                "text", f"how far #{self._about.number} ends past what the client allowed", x=_LEFT + 28, y=y + 51
            )
        for index, (fate, name) in enumerate(_FATES.items()):
            x = _LEFT + 150 * index
            yield self._bar(Point(0, 0, 0, 0, 0, None, fate), x, y + 14, 20, 14)
            yield tag("text", name, x=x + 28, y=y + 26)

    def _stairs(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        return [
            corner
            for index, number in enumerate(numbers)
            for corner in ((self._x(index), self._y(number)), (self._x(index + 1), self._y(number)))
        ]

    def _callout(self) -> Iterator[Markup]:
        point = self._about
        if point.beyond_bytes <= 0:
            return
        left = self._x(self._points.index(point))
        x, top, bottom = left + self._slot * 0.92, self._y(point.end), self._y(point.edge)
        tone = "bad" if point.fate == "INVALID" else "plain"
        yield tag("path", class_=f"bracket {tone}", d=path([(x - 6, top), (x, top), (x, bottom), (x - 6, bottom)]))
        lines = wrap_text(sentence(point), 330, 13)
        widest, middle = max(text_width(line, 13) for line in lines), left + self._slot / 2
        start = min(max(middle - widest / 2, _LEFT), self.width - widest - 8)
        yield tag("path", class_=f"leader {tone}", d=path([(middle, top), (middle, 22 + 17 * (len(lines) - 1))]))
        for index, line in enumerate(lines):
            yield tag("text", line, class_=f"callout {tone}", x=start, y=18 + 17 * index)


def _step(rough: float) -> int:
    """The least of 1, 2, 5, 10, 20, … that is no smaller."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if factor * size >= rough:
                return factor * size
        size *= 10
