"""What can be observed after a step: one small file a condition, whose name is the word's.

A file here has DOC, one line for the reference; ARGUMENTS, the shape of what stands after the word; and
`look(moment, arguments)`, which says whether it holds, with the evidence, or what is missing, and whether that is seen
not to be. It is asked again whenever something was seen, and once more when the trial is judged, over all that was seen
of it. A condition with LIVE asks the kernel itself how things stand now: it is asked while the trial runs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast

from netlab.analysis.result import Proof
from netlab.experiments.moment import Moment
from netlab.yamlspec.shapes import Fields


class Condition(Protocol):
    """What a condition's file has. LIVE may be left out: it is then False."""

    DOC: str
    ARGUMENTS: Fields

    def look(self, moment: Moment, arguments: Mapping[str, Any]) -> Proof: ...


@cache
def conditions() -> dict[str, Condition]:
    """The conditions by their words, in the order of the alphabet."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name.replace("_", "-"): cast(Condition, import_module(f"{__name__}.{name}")) for name in names}


def is_live(condition: Condition) -> bool:
    """Whether a condition must be asked while the trial runs."""
    return bool(getattr(condition, "LIVE", False))
