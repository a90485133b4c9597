"""Text with a style for a terminal that has one. Pure: whoever lays text out says what it is, `terminal.py` colours it.

Nothing is said by colour alone: the text without it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Style(Enum):
    """What a piece of text is. The values are parameters of SGR (ECMA-48, 8.3.117)."""

    BAD = "1;31"
    GOOD = "32"
    UNSURE = "33"
    STRONG = "1"
    QUIET = "2"


class Piece(NamedTuple):
    """A piece of text, and how it is to look."""

    text: str
    style: Style | None = None


def plain(pieces: Iterable[Piece]) -> str:
    """The text alone."""
    return "".join(piece.text for piece in pieces)
