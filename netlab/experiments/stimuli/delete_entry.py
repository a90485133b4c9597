"""delete-entry: conntrack in a namespace forgets the connection, as after a flush, a failover, or an evicted entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, TRACKER
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "conntrack in a namespace loses its entry of the connection, and the translation with it (ctnetlink)"
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Delete it; NotApplied where there is none, OSError where the kernel or the user can't."""
    from netlab.linux import ctnetlink

    netns = arguments["in"]
    header = context.tracked_as(netns, arguments.get("connection", FIRST))
    with context.namespaces.inside(netns):
        if header is None or not ctnetlink.delete(header):
            raise NotApplied(f"an entry of the connection in {netns}'s conntrack")
