"""What is shown in the place of characters that a terminal or a browser would obey. Pure.

A file, a bundle, a program or the command line can hold an escape sequence, or a character that turns the direction of
the text around it. Each such character is shown as Python writes it in a string: `\\x1b`, `\\u202e`. All others stay.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from itertools import groupby
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
    return text if text.isprintable() else "".join(map(_shown, text))


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


def is_hidden(char: str) -> bool:
    """Whether a character is shown as an escape in a text of several lines."""
    if char.isprintable() or char in "\n\t":
        return False
    return (category(char) in _HIDDEN and char not in _SPELLING) or _is_noncharacter(ord(char))


def shell_word(text: str) -> str:
    """The text as one word for sh, in which printf writes what would be hidden."""
    if text.isprintable():
        return shlex.quote(text)
    parts = []
    for hidden, chars in groupby(text, is_hidden):
        run = "".join(chars)
        octal = "".join(f"\\{byte:03o}" for byte in run.encode()) if hidden else ""
        parts.append(f"\"$(printf '{octal}')\"" if hidden else shlex.quote(run))
    return "".join(parts)


def shell_words(words: Iterable[str]) -> str:
    """The words of a command for sh."""
    return " ".join(map(shell_word, words))


def _shown(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"  # a byte that is no UTF-8, as surrogateescape (PEP 383) keeps it
    return char.encode("unicode_escape").decode() if is_hidden(char) or char in "\n\t" else char


def _is_noncharacter(code: int) -> bool:
    """Whether Unicode will never give it a meaning; XML forbids two of them."""
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
