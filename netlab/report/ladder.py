"""The sequence diagram across the namespaces for a terminal: one line and more a packet, ASCII. Pure.

`sequence/` says what is shown; here is how: times, packets and their numbers on the left, then a lifeline a
namespace, and what befell a packet in words below it. No line is longer than the width. On a narrow page a packet's
words stand below its line, not before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from netlab.record.words import endpoint
from netlab.report.sequence.diagram import BAD, Arrow, Column, Fold, Ladder
from netlab.report.wrapping import wrap
from netlab.style import Piece, Style, plain

_TIME, _NUMBER = 10, 5
_WORDS = 20
_LEAST_PITCH = 9
"""Columns from one lifeline to the next: room for a mark as long as INVALID."""


_BESIDE = 80
"""Columns from which on there is room for a packet's words before the lifelines."""


def render(ladder: Ladder, width: int = 80) -> str:
    """The diagram as lines of at most width columns, ending in a newline; below 60 the width is taken as 60."""
    return plain(pieces(ladder, width))


def pieces(ladder: Ladder, width: int = 80) -> Iterator[Piece]:
    """The same, a line a piece; the lines of packets that conntrack calls INVALID, or that are dropped, are styled."""
    for line in _Text(ladder, max(width, 60)).lines():
        yield Piece(line.text, line.style)
        yield Piece("\n")


class _Text:
    def __init__(self, ladder: Ladder, width: int) -> None:
        self._ladder, self._width = ladder, width
        self._beside = width >= _BESIDE
        self._left = _TIME + _NUMBER + (_WORDS if self._beside else 0) + 1
        self._columns, self._place = _fitting(ladder, width - self._left - 1)
        lanes = max(len(self._columns) - 1, 1)
        pitch = (width - 1 - self._left) // lanes
        self._x = [self._left + pitch * index for index in range(len(self._columns))]
        self._pitch = pitch

    def lines(self) -> Iterator[Piece]:
        for row in (*self._head(), *self._ladder.rows):
            if isinstance(row, str):
                yield Piece(row)
            elif isinstance(row, Arrow):
                yield from self._arrow(row)
            else:
                text = f"... {row.text} ..." if isinstance(row, Fold) else row.text
                yield from map(Piece, self._between(text, self._ladder.ms(row.time_ns)))

    def _head(self) -> Iterator[str]:
        flow = self._ladder.flow
        client = endpoint(flow.client_address, flow.client_port)
        behind = f", which is {endpoint(flow.endpoint, flow.target_port)} behind the NAT of {flow.node}"
        yield from wrap(
            f"{client} talks to {endpoint(flow.vip, flow.port)}{behind if flow.translated else ''}. "
            "Numbers are relative, windows in bytes, times in ms.",
            self._width,
        )
        hidden = [column.netns for column in self._ladder.columns if column not in self._columns]
        if hidden:
            yield from wrap(f"Not drawn, for want of room: {', '.join(hidden)}.", self._width)
        yield ""
        yield from self._heads([column.netns for column in self._columns])
        yield from self._heads([column.label for column in self._columns])
        yield self._canvas("")

    def _heads(self, words: Sequence[str]) -> Iterator[str]:
        """The words above their lifelines, each broken where the next one's room begins, if it needs any."""
        cells = []
        for index, word in enumerate(words):
            beside = (*words[max(index - 1, 0) : index], *words[index + 1 : index + 2])
            cells.append(wrap(word, self._pitch * (1 if any(beside) else 2) - 1) or [""])
        for index in range(max(len(cell) for cell in cells)):
            line = [" "] * self._width
            for x, cell in zip(self._x, cells, strict=True):
                piece = cell[index] if index < len(cell) else ""
                start = min(max(x - len(piece) // 2, 0), self._width - len(piece))
                line[start : start + len(piece)] = piece
            if text := "".join(line).rstrip():
                yield text

    def _arrow(self, arrow: Arrow) -> Iterator[Piece]:
        first, *rest = _pack(arrow.words, _WORDS) if self._beside else [""]
        number = f"#{arrow.number}"
        gutter = f"{self._ladder.ms(arrow.time_ns):>{_TIME - 1}} {number:<{_NUMBER - 1}} {first}"
        bad = any(mark.word in BAD for mark in arrow.marks)
        yield Piece(self._canvas(gutter, arrow), Style.BAD if bad else None)
        for line in rest:
            yield Piece(self._canvas(" " * (_TIME + _NUMBER) + line))
        for note in (*(() if self._beside else [" ".join(arrow.words)]), *arrow.notes):
            yield from map(Piece, self._between(note))

    def _between(self, text: str, time: str = "") -> Iterator[str]:
        """Text across the lifelines."""
        head = f"{time:>{_TIME - 1}} "
        for line in wrap(text, self._width - _TIME - _NUMBER):
            yield f"{head:<{_TIME + _NUMBER}}{line}".rstrip()
            head = ""

    def _canvas(self, gutter: str, arrow: Arrow | None = None) -> str:
        """The lifelines, with the gutter's text before them and the packet's arrow between them."""
        line = [" "] * self._width
        line[: len(gutter)] = gutter
        if arrow is not None:
            self._draw(line, arrow)
        for x in self._x:
            line[x] = "|"
        if arrow is not None:
            for column, marks in groupby(arrow.marks, key=lambda mark: mark.column):
                self._put(line, ",".join(mark.word for mark in marks), self._x[self._place[column]])
        return "".join(line).rstrip()

    def _draw(self, line: list[str], arrow: Arrow) -> None:
        start, end = self._x[self._place[arrow.start]], self._x[self._place[arrow.reach]]
        low, high = min(start, end), max(start, end)
        line[low:high] = "-" * (high - low)
        for x in {self._x[self._place[column]] for column in arrow.came_to} - {start}:
            line[x - 1 if start < end else x + 1] = ">" if start < end else "<"
        if arrow.end == arrow.start != arrow.reach:
            line[start + 1 if start < end else start - 1] = "<" if start < end else ">"

    def _put(self, line: list[str], word: str, x: int) -> None:
        start = min(x - len(word) // 2, self._width - len(word))
        line[start : start + len(word)] = word


def _fitting(ladder: Ladder, room: int) -> tuple[list[Column], list[int]]:
    """The columns that there is room for, and for each of the ladder's the index of the one it is drawn at."""
    flow = ladder.flow
    cast = {flow.client, flow.node, flow.server_node, flow.server}
    columns = list(ladder.columns)
    extra = [column for column in columns if column.netns not in cast]
    while extra and (len(columns) - 1) * _LEAST_PITCH > room:
        columns.remove(extra.pop())
    place, last = [], 0
    for column in ladder.columns:
        last = columns.index(column) if column in columns else last
        place.append(last)
    return columns, place


def _pack(words: Iterable[str], room: int) -> list[str]:
    """The words in lines no longer than the room, each unbroken."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
