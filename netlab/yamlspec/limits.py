"""The most of everything that a document may ask of whoever reads it: so that any file is read, or refused, within
seconds and 500 MB. Honest labs stay far below: 5,000 pods are some 60,000 values.
"""

from __future__ import annotations

MAX_BYTES = 1 << 24
"""Of a file, about a hundred thousand pods; /dev/zero has no end."""

MAX_DEPTH = 64
"""Levels of nesting. The language needs 8; libyaml's composer recurses, and some 10,000 levels end the process."""

MAX_NODES = 500_000
"""Keys, values and list items, those of an alias counted each time it is used: a few nested aliases can mean billions.
PyYAML holds each in about 400 bytes."""

MAX_DIRECTIVES = 100
"""Lines that begin with %: libyaml compares each %TAG with all before it."""

MAX_KEY = 255
"""Characters of a key. It is a part of the path of everything below it."""

MAX_VARIABLES = 1 << 24
"""Characters that the variables of a document stand for, in all their places together."""

MAX_PROBLEMS = 200
"""Problems told of one document. Who writes the next one has mended them."""

MAX_MESSAGE = 1000
"""Characters of a problem's message, of its path and of its hint."""

MAX_SUGGESTED = 2000
"""Names among which the one is looked for that was meant."""

MAX_NUMBER = 64
"""Characters of a number."""

MAX_REGEX = 1000
"""Characters of a regular expression."""

MAX_COMMAND = 1 << 17
"""Characters of a command: the kernel takes no longer argument (MAX_ARG_STRLEN, include/uapi/linux/binfmts.h)."""

MAX_TABLE = 1 << 18
"""Characters of an nftables table."""

MAX_SET = 100
"""Values that one fix, or one experiment, changes."""

MAX_READ_AGAIN = 1_000_000
"""Values read again for a topology's fixes and experiments, each of which is tried in a lab of its own."""

MAX_NAMESPACES = 20_000

MAX_INTERFACES = 40_000

MAX_ADDRESSES = 1000
"""Addresses of one interface, and virtual addresses of one Service."""

MAX_ROUTES = 150_000
"""Routes of a lab, most of them derived."""

MAX_RULES = 120_000
"""Services' ports by their endpoints (and two for each port) and families, on all nodes together: each is some rules
there, of which a plan holds about 3 kB. With session affinity they count twice."""


def shortened(text: str, length: int = MAX_MESSAGE) -> str:
    """The text with so many characters at most, cut with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"
