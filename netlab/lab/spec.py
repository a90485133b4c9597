"""What someone asked for: a lab's topology with all that it came from. Pure."""

from __future__ import annotations

from typing import NamedTuple

from netlab.errors import Problem
from netlab.model import Topology
from netlab.topology import load_with_fixes


class Spec(NamedTuple):
    """A topology as someone asked for it: the text, the `--set` pairs and the fixes it came from, and what it means.

    file is the path as given, None for standard input. named says that the lab's name was given beside them; warnings
    are of what is allowed in the text and hardly meant.
    """

    topology: Topology
    text: str
    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()
    named: bool = True
    warnings: tuple[Problem, ...] = ()


def load(text: str, file: str | None, settings: tuple[tuple[str, str], ...], fixes: tuple[str, ...], name: str) -> Spec:
    """The spec that a lab of that name was made from; UsageError for a name that is no fix, TopologyError."""
    warnings: list[Problem] = []
    made = load_with_fixes(text, file or "-", settings, name, fixes, warnings.append)
    return Spec(made, text, file, settings, fixes, warnings=tuple(warnings))


def with_only_fixes(spec: Spec, fixes: tuple[str, ...]) -> Spec:
    """The same topology with these fixes and no others; UsageError for a name that is none."""
    return load(spec.text, spec.file, spec.settings, fixes, spec.topology.name)
