"""Text that a terminal would obey, and whether any of it came through."""

from __future__ import annotations

import re

SEQUENCES = (
    "\x1b[2J\x1b[1;1H",  # clears the screen
    "\x1b]0;title\x07",  # names the window
    "\x1b]52;c;Y3VybCBldmls\x07",  # writes the clipboard
    "\x1b]8;;http://192.0.2.1/\x1b\\link\x1b]8;;\x1b\\",  # a link to elsewhere
    "\x1bP+q544e\x1b\\\x1b[6n\x1b[c",  # asks the terminal, which answers on stdin
    "\x9b31m\x9d0;title\x9c",  # the same in C1
    "\r\x1b[Klab x is up",  # writes over the line
    "\x08\x08\x0b\x0c\x7f\x00\x0e\x85",
    "\u202eresu\u2066x\u2069\u200f\u200e\u061c\u2028\u2029",  # turns the text's direction
)
HOSTILE = "".join(SEQUENCES)
FORGED = "\nlab forged is up"
"""A line of ours, made by somebody else."""

FORBIDDEN = frozenset(
    chr(code)
    for begin, end in (
        (0x00, 0x08),
        (0x0B, 0x1F),
        (0x7F, 0x9F),
        (0x061C, 0x061C),
        (0x200E, 0x200F),
        (0x2028, 0x202E),
        (0x2066, 0x2069),
        (0xD800, 0xDFFF),
    )
    for code in range(begin, end + 1)
)
_FORBIDDEN = re.compile(f"[{re.escape(''.join(sorted(FORBIDDEN)))}]")


def forbidden(text: str) -> list[str]:
    """The characters in a text that a terminal obeys, with what is around them."""
    return [repr(text[max(found.start() - 20, 0) : found.end() + 20]) for found in _FORBIDDEN.finditer(text)]
