"""HTML and SVG as values: every text is escaped unless it is Markup already, and shows its control characters. Pure.

`tag("p", "1 < 2", class_="note")` is `<p class="note">1 &lt; 2</p>`. Nothing here knows what is being drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from netlab.escapes import lines

Attribute: TypeAlias = str | int | float | bool | None


class Markup(str):
    """Text that is markup: it is taken as it stands."""

    __slots__ = ()


VOID = frozenset({"meta", "br", "hr"})
"""Elements that have no end tag (HTML Living Standard, 13.1.2)."""


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """An element. In attribute names a trailing _ goes and others become -; None and False are left out, True stands
    alone; a number is written with at most one decimal."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{_value(value)}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """The parts one after the other, each escaped unless it is Markup."""
    return Markup(between.join(part if isinstance(part, Markup) else _text(part) for part in parts))


def _value(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return _text(str(value))


def _text(text: str) -> str:
    """Most control characters are allowed in no HTML and no XML (XML 1.0, 2.2); bidi ones turn the text around them."""
    return escape(lines(text))


def path(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """Points joined by straight lines, as the `d` of an SVG path."""
    pairs = [f"{_value(float(x))} {_value(float(y))}" for x, y in points]
    return f"M{' L'.join(pairs)}{' Z' if closed else ''}"


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif font of that size; a little more, so that it fits its box."""
    return (
        sum(0.34 if char in " .,:;'|il!/()[]" else 0.72 if char.isupper() or char in "mw%" else 0.56 for char in text)
        * size
    )


def wrap_text(text: str, width: float, size: float) -> list[str]:
    """The text in lines that are about as wide; a word that is wider is broken, after a hyphen where it has one."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for char in word:
            if lines[-1] and text_width(lines[-1] + char, size) > width:
                whole, hyphen, begun = lines[-1].rpartition("-")
                lines[-1:] = [whole + hyphen, begun] if hyphen else [begun, ""]
            lines[-1] += char
    return lines
