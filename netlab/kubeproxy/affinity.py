"""Session affinity in nft's listings: which clients a node's rules remember, in sets that the packets themselves fill.

Pure. When rules take the place of others, kube-proxy keeps what its sets remember of the endpoints that stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_TABLE = r"(?m)^table (?P<family>\S+) (?P<name>\S+) \{\n(?P<body>(?:[\t\n].*\n|\n)*)\}$"
_SET = (
    r"(?m)^\tset (?P<name>\S+) \{\n(?:\t\t(?!elements).*\n)*\t\tflags [\w,]*\bdynamic\b.*\n"
    r"(?:\t\t(?!elements).*\n)*\t\telements = \{ (?P<elements>[^}]*) \}\n"
)
_CLIENT = r"(?P<address>[0-9a-f:.]+) (?:timeout \w+ )?expires (?P<expires>\w+)"
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


class Memory(NamedTuple):
    """A set that remembers clients: (family, table, name), and for how long at most."""

    family: str
    table: str
    name: str
    timeout_s: int


def reminders(listing: str, memories: Iterable[Memory]) -> str:
    """Commands that give the sets of new rules the clients that sets of the same names had in `nft list ruleset`."""
    known = {memory[:3]: memory.timeout_s for memory in memories}
    lines = []
    for table in re.finditer(_TABLE, listing):
        for found in re.finditer(_SET, table["body"]):
            timeout_s = known.get((table["family"], table["name"], found["name"]))
            if timeout_s is not None and (elements := ", ".join(_elements(found["elements"], timeout_s))):
                lines.append(f"add element {table['family']} {table['name']} {found['name']} {{ {elements} }}\n")
    return "".join(lines)


def _elements(listed: str, timeout_s: int) -> Iterator[str]:
    for client in re.finditer(_CLIENT, listed):
        # The kernel takes no element that would outlive the set's timeout (ERANGE).
        if left_ms := min(_ms(client["expires"]), timeout_s * 1000):
            yield f"{client['address']} expires {left_ms}ms"


def _ms(time: str) -> int:
    return sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[dhms])", time))
