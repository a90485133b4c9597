"""send: a program writes so many bytes more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import BYTES, CONNECTION, END
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the program at that end writes so many bytes more; what its queue has no room for follows as it drains"
ARGUMENTS = Fields(
    {
        "from": Key(END, "which end's program", required=True),
        "bytes": Key(BYTES, "how many; no more than the payload has", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Write; NotApplied where the end has had an error, or hasn't got so many bytes."""
    end = context.end(arguments["from"], arguments.get("connection", FIRST))
    left = end.payload_bytes - end.goal_bytes
    if arguments["bytes"] > left:
        raise NotApplied(
            f"{arguments['bytes']:,} bytes more for the {end.name} to send: {left:,} of its payload are left"
        )
    end.goal_bytes += arguments["bytes"]
    context.pump()
