"""start-reading: a program that had stopped reads on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the program at that end starts reading again"
ARGUMENTS = END_ARGUMENTS


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Read on, and at once what waits."""
    context.end(**arguments).reads = True
    context.pump()
