"""Rows of words in columns. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from netlab import escapes

_BETWEEN = "  "


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """The rows in columns, ending in a newline. Where they are wider than the width, lists ("a, b") go on in lines
    below, as far as that helps; None: never."""
    rows = [tuple(map(escapes.line, row)) for row in rows]
    columns = [*zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    over = sum(widths) + len(_BETWEEN) * (len(widths) - 1) - (width or 0)
    for index in sorted(range(len(columns)), key=lambda index: -widths[index]):
        if width is None or over <= 0:
            break
        least = max(len(item) for cell in columns[index] for item in _items(cell))
        narrowed = max(least, widths[index] - over)
        over -= widths[index] - narrowed
        widths[index] = narrowed
    broken = [[[*_broken(cell, width)] for cell, width in zip(row, widths, strict=True)] for row in rows]
    widths = [max(len(piece) for cell in column for piece in cell) for column in zip(*broken, strict=True)]
    lines = (pieces for cells in broken for pieces in zip_longest(*cells, fillvalue=""))
    joined = (_BETWEEN.join(piece.ljust(width) for piece, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in joined)


def _broken(cell: str, width: int) -> Iterator[str]:
    """The lines of a cell: as many of its list's items in each as fit."""
    held = ""
    for item in _items(cell):
        longer = f"{held} {item}" if held else item
        if held and len(longer) > width:
            yield held
            longer = item
        held = longer
    yield held


def _items(cell: str) -> list[str]:
    """The items of a list, each with its comma; of other words, all as one."""
    *first, last = cell.split(", ")
    return [*(f"{item}," for item in first), last]
