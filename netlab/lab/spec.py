"""What someone asked for: a lab's topology with all that it came from. Pure."""

from __future__ import annotations

from typing import NamedTuple

from netlab.model import Topology


class Wanted(NamedTuple):
    """A topology as someone asked for it: the text, the `--set` pairs and the fixes it came from, and what it means.

    file is the path as given, None for standard input.
    """

    topology: Topology
    text: str
    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()
