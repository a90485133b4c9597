"""stop-reading: a program reads no more, so that its receive window closes as data comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the program at that end stops reading: its receive window closes as data comes"
ARGUMENTS = END_ARGUMENTS


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Stop reading."""
    context.end(**arguments).reads = False
