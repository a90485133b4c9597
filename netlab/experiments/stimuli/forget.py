"""forget: an end of a connection is gone without a word to the other, as where its host crashes or loses its power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the socket at that end is gone without a packet, as where its host crashes (TCP_REPAIR)"
ARGUMENTS = END_ARGUMENTS


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Forget it; NotApplied where the end isn't there, UnsupportedError without repair mode."""
    end = context.end(**arguments)
    context.leave(end, arguments.get("connection", FIRST), silently=True)
