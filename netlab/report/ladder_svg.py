"""The sequence diagram as SVG: what `sequence/` says is shown, in pieces short enough for a page. Pure.

Each packet is a link to its details, so that it can be reached and opened with the keyboard alone. Meaning never rests
on colour: every mark is a word, an INVALID packet's arrow is thick, a RST's is dashed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.report.markup import Markup, join, path, tag, text_width, wrap_text
from netlab.report.sequence.diagram import BAD, Arrow, Fold, Ladder, Row

_SIZE = 13
"""Font size, in the user units that are CSS pixels when the picture is drawn at its own width."""

_BOLD = 1.15
"""How much wider a remark's text is."""

_WORDS, _TEXT = 72, 336
"""Where a row's words begin and end: beside the lifelines, since no text stands on one, and within a phone's width."""

_FIRST, _RIGHT = _TEXT + 56, 70
_USUAL, _NARROWEST = 1000, 150
"""As wide as the page on most screens; the least from one lifeline to the next, where the figure must scroll."""

_LINE = 17
_HEAD = 52
_TALLEST = 440
"""A piece is no taller than this, so that on paper no page is left half empty for a figure that must stay whole."""


def figures(ladder: Ladder) -> list[Markup]:
    """The pictures, from top to bottom; each has the namespaces' names at its top."""
    pieces: list[list[tuple[Row, float]]] = [[]]
    head = height = _head(ladder)
    for row in ladder.rows:
        tall = _height(row)
        if pieces[-1] and height + tall > _TALLEST:
            pieces.append([])
            height = head
        pieces[-1].append((row, tall))
        height += tall
    return [_figure(ladder, piece, number, len(pieces)) for number, piece in enumerate(pieces, 1) if piece]


def width(ladder: Ladder) -> int:
    """A multiple of 100, by which the page says where it must be scrolled."""
    needed = _FIRST + _NARROWEST * (len(ladder.columns) - 1) + _RIGHT
    return max(_USUAL, -(-needed // 100) * 100)


def _x(ladder: Ladder, column: int) -> float:
    return _FIRST + (width(ladder) - _FIRST - _RIGHT) / max(len(ladder.columns) - 1, 1) * column


def _texts(row: Row) -> list[tuple[str, str]]:
    """A row's lines beside the lifelines, each with its class."""
    room = _TEXT - _WORDS
    if isinstance(row, Arrow):
        lines = [(line, "words") for line in wrap_text(" ".join(row.words), room / _BOLD, _SIZE)]
        bad = [mark.word for mark in row.marks if mark.word in BAD]
        if bad:
            lines.append((" · ".join(dict.fromkeys(bad)), "verdict"))
        return lines + [(line, "note") for note in row.notes for line in wrap_text(note, room, _SIZE)]
    if isinstance(row, Fold):
        return [(line, "fold") for line in wrap_text(f"… {row.text} …", room, _SIZE)]
    return [(line, "remark") for line in wrap_text(row.text, room / _BOLD, _SIZE)]


def _height(row: Row) -> float:
    return max(len(_texts(row)), 2 if isinstance(row, Arrow) else 1) * _LINE + 12.0


def _figure(ladder: Ladder, rows: Sequence[tuple[Row, float]], number: int, of: int) -> Markup:
    head = _head(ladder)
    wide, height = width(ladder), head + sum(tall for _, tall in rows) + 8
    names = ", ".join(column.netns for column in ladder.columns)
    part = f", part {number} of {of}" if of > 1 else ""
    lifelines = [
        tag("line", class_="lifeline", x1=_x(ladder, i), x2=_x(ladder, i), y1=head - 8, y2=height - 4)
        for i in range(len(ladder.columns))
    ]
    drawn: list[Markup] = []
    top = head
    for row, tall in rows:
        drawn += _row(ladder, row, top, wide)
        top += tall
    return tag(
        "svg",
        tag("title", f"The packets between {names}{part}"),
        tag(
            "desc",
            "Time runs downwards. Each packet is an arrow from the namespace that sent it to the last that saw it.",
        ),
        *_heads(ladder),
        *lifelines,
        *drawn,
        class_="ladder",
        role="group",
        viewBox=f"0 0 {wide} {height:g}",
        width=wide,
        height=height,
    )


def _names(ladder: Ladder) -> list[list[str]]:
    """The columns' names, each in lines that leave its neighbours' room alone."""
    room = min(_x(ladder, 1) - _x(ladder, 0), 2 * _RIGHT) - 8
    return [wrap_text(column.netns, room / _BOLD, _SIZE) for column in ladder.columns]


def _head(ladder: Ladder) -> float:
    """Where the rows begin."""
    return _HEAD + float(_LINE) * (max(map(len, _names(ladder)), default=1) - 1)


def _heads(ladder: Ladder) -> Iterator[Markup]:
    below = _head(ladder) - _HEAD
    for index, (column, name) in enumerate(zip(ladder.columns, _names(ladder), strict=True)):
        x, top = _x(ladder, index), 18 + below - _LINE * (len(name) - 1)
        for row, line in enumerate(name):
            yield tag("text", line, class_="head", x=x, y=top + _LINE * row, text_anchor="middle")
        if column.label:
            yield tag("text", column.label, class_="small", x=x, y=35 + below, text_anchor="middle")


def _row(ladder: Ladder, row: Row, top: float, wide: float) -> Iterator[Markup]:
    if isinstance(row, Arrow):
        yield _packet(ladder, row, top, wide)
        return
    yield tag("text", ladder.ms(row.time_ns), class_="small", x=8, y=top + 17)
    yield from _lines(row, top)


def _lines(row: Row, top: float) -> Iterator[Markup]:
    for index, (line, kind) in enumerate(_texts(row)):
        yield tag("text", line, class_=kind, x=_WORDS, y=top + 17 + index * _LINE)


def _packet(ladder: Ladder, arrow: Arrow, top: float, wide: float) -> Markup:
    start, end = _x(ladder, arrow.start), _x(ladder, arrow.reach)
    ahead = 1 if end >= start else -1
    y = top + 20
    kinds = ["packet"]
    ended = arrow.marked("DROP") or arrow.marked("LOST")
    kinds += ["invalid"] if arrow.marked("INVALID") else ["dropped"] if ended else []
    kinds += ["rst"] if arrow.kind[0] == "RST" else []
    words = " ".join(arrow.words)
    drawn = [
        tag("rect", class_="hit", x=2, y=top + 2, width=wide - 4, height=_height(arrow) - 4, rx=4),
        tag("text", f"#{arrow.number}", class_="number", x=8, y=top + 17),
        tag("text", ladder.ms(arrow.time_ns), class_="small", x=8, y=top + 17 + _LINE),
        tag("line", class_="shaft", x1=start, x2=end - 6 * ahead, y1=y, y2=y),
        *(_tip(_x(ladder, column), y, ahead) for column in sorted(arrow.came_to)),
        *_marks(ladder, arrow, y),
        *_lines(arrow, top),
    ]
    spoken = (
        f"Packet {arrow.number}, {words}, from {ladder.columns[arrow.start].netns} to {ladder.columns[arrow.end].netns}"
    )
    spoken += "".join(f"; {mark.word} at {ladder.columns[mark.column].netns}" for mark in arrow.marks)
    return tag(
        "a",
        tag("title", spoken),
        *drawn,
        href=f"#packet-{arrow.number}",
        class_=" ".join(kinds),
        aria_label=spoken,
    )


def _tip(x: float, y: float, ahead: int) -> Markup:
    return tag("path", class_="tip", d=path([(x, y), (x - 9 * ahead, y - 4.5), (x - 9 * ahead, y + 4.5)], closed=True))


def _marks(ladder: Ladder, arrow: Arrow, y: float) -> Iterator[Markup]:
    by_column: dict[int, list[str]] = {}
    for mark in arrow.marks:
        by_column.setdefault(mark.column, []).append(mark.word)
    for column, words in by_column.items():
        word = " · ".join(words)
        half = text_width(word, 12) / 2 + 7
        kind = "bad" if BAD & set(words) else "good"
        yield join(
            [
                tag(
                    "rect", class_=f"pill {kind}", x=_x(ladder, column) - half, y=y - 9, width=2 * half, height=18, rx=9
                ),
                tag("text", word, class_=f"pill-text {kind}", x=_x(ladder, column), y=y + 4.5, text_anchor="middle"),
            ]
        )
