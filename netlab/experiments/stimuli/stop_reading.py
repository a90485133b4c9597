"""stop-reading: a program reads no more, so that its receive window closes as data comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Stage

DOC = "the program at that end stops reading: its receive window closes as data comes"
ARGUMENTS = END_ARGUMENTS


def apply(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Stop reading."""
    stage.end(**arguments).reads = False
