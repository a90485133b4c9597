"""close: a program is done with its connection, and closes its socket; the kernel says the rest to the other end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the program at that end closes its socket: its kernel sends a FIN, after what still waits in the queue"
ARGUMENTS = END_ARGUMENTS


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Close it; NotApplied where the end isn't there."""
    end = context.end(**arguments)
    context.leave(end, arguments.get("connection", FIRST), silently=False)
