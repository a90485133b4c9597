"""What a step of an experiment can do: one small file a stimulus, whose name is the verb's.

A file here is all that a new verb takes. It has DOC, one line for the reference; ARGUMENTS, the shape of what stands
after the verb; and `apply(context, arguments)`, which does it. That raises NotApplied where it could not be done: the
trial is then inconclusive. What it changes in the lab it gives back through `context.undo`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, cast

from netlab.yamlspec.shapes import Fields

if TYPE_CHECKING:
    from netlab.experiments.context import Context


class Stimulus(Protocol):
    """What a stimulus's file has."""

    DOC: str
    ARGUMENTS: Fields

    def apply(self, context: Context, arguments: Mapping[str, Any]) -> None: ...


@cache
def stimuli() -> dict[str, Stimulus]:
    """The stimuli by their verbs, in the order of the alphabet."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name.replace("_", "-"): cast(Stimulus, import_module(f"{__name__}.{name}")) for name in names}
