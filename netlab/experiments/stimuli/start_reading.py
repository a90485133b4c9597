"""start-reading: a program that had stopped reads on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Stage

DOC = "the program at that end reads on"
ARGUMENTS = END_ARGUMENTS


def apply(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Read on, and at once what waits."""
    stage.end(**arguments).reads = True
    stage.pump()
