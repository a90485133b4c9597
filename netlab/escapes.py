"""What is shown in the place of characters that a terminal or a browser would obey. Pure.

A file, a bundle, a program or the command line can hold an escape sequence, or a character that turns the direction of
the text around it. Each such character is shown as Python writes it in a string: `\\x1b`, `\\u202e`. All others stay.
"""

from __future__ import annotations

import json
from typing import Any
from unicodedata import category

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""C0, DEL and C1; format characters, all that set a direction among them; lone surrogates; U+2028 and U+2029."""

_SPELLING = frozenset("\u200c\u200d")
"""ZWNJ and ZWJ are format characters too. Persian and Hindi are not spelt without; they only join, or not."""


def lines(text: str) -> str:
    """Text of several lines: newlines and tabs stay."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(line, between.split("\t"))) for between in text.split("\n"))


def line(text: str) -> str:
    """Text that is to be one line: a newline is shown as `\\n`, a tab as `\\t`."""
    return text if text.isprintable() else "".join(map(_character, text))


class Lines(str):
    """A text of several lines: whoever put it together has shown, with `line`, what was to be one."""

    __slots__ = ()


def shown(text: str) -> str:
    """The text as one line, or if it is Lines, as these."""
    return lines(text) if isinstance(text, Lines) else line(text)


def as_json(value: Any) -> str:
    """JSON for a program or a terminal, indented by two, ending in a newline: ASCII, without control characters.

    json.dumps leaves DEL as it is (RFC 8259, 7, asks no more).
    """
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n"


def _character(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"  # a byte that is no UTF-8, as surrogateescape (PEP 383) keeps it
    if (category(char) in _HIDDEN and char not in _SPELLING) or _is_noncharacter(ord(char)):
        return char.encode("unicode_escape").decode()
    return char


def _is_noncharacter(code: int) -> bool:
    """Whether Unicode will never give it a meaning; XML forbids two of them."""
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
