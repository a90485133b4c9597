"""The kinds of interface. Each is one file: its keys in a topology, its value, what rtnetlink is asked to make it, the
same in `ip`'s words, and how two of it differ. Pure.

The registry is here. Whoever wires, plans, makes, compares or draws links asks it, or asks the values (`model.Link`
says what they answer), and names no kind.
"""

from __future__ import annotations

from netlab.links import bridge, dummy, veth
from netlab.links.kind import Kind

__all__ = ["KINDS", "PAIRED", "Kind"]

KINDS: tuple[Kind, ...] = (
    bridge.KIND,
    veth.KIND,
    dummy.KIND,
)
"""One line a kind, in the order in which they are made: a bridge before its ports."""

PAIRED = frozenset(kind.name for kind in KINDS if kind.paired)
"""The kinds whose links have two ends, each in a namespace."""
