"""Text in lines for a terminal. Pure."""

from __future__ import annotations

import textwrap

from netlab import escapes


def wrap(
    text: str, width: int, *, initial_indent: str = "", subsequent_indent: str = "", break_on_hyphens: bool = True
) -> list[str]:
    """The text in lines of at most width columns, as textwrap has it; control characters count as they are shown."""
    return textwrap.wrap(
        escapes.lines(text),
        width,
        initial_indent=initial_indent,
        subsequent_indent=subsequent_indent,
        break_on_hyphens=break_on_hyphens,
    )
