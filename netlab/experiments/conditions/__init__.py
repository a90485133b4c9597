"""What can be observed after a step: one small file a condition, whose name is the word's.

A file here has DOC, one line for the reference; ARGUMENTS, the shape of what stands after the word; and
`look(moment, arguments)`, which says whether it holds, with the evidence, or what is missing. It is asked again
whenever something was seen, and once more when the trial is judged, over all that was seen of it. A condition with LIVE
asks the kernel itself how things stand now: it is asked while the trial runs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, cast

from netlab.analysis.result import Proof
from netlab.record.events import Event
from netlab.record.flow import FlowEvents
from netlab.yamlspec.shapes import Fields

if TYPE_CHECKING:
    from netlab.experiments.context import Context


@dataclass(frozen=True, slots=True)
class Moment:
    """What a condition looks at: the trial's events so far, in the order of their times, and when its step began.

    flow_events are those of the connection under study, or of the first one before there is it; None without any. load
    are those of each connection of a load. context is None once the trial is over.
    """

    events: tuple[Event, ...]
    flow_events: FlowEvents | None
    since_ns: int
    context: Context | None
    load: tuple[FlowEvents, ...] = ()

    def connections(self) -> tuple[FlowEvents, ...]:
        """The events of each connection: of a load's, or of the one under study."""
        return self.load or ((self.flow_events,) if self.flow_events is not None else ())

    def since(self) -> tuple[Event, ...]:
        """The events since the step began."""
        return tuple(event for event in self.events if event.time_ns >= self.since_ns)


NO_CONNECTION = Proof((), "a connection whose packets can be told")
"""What a condition on packets is missing before there is a connection."""


def missing(what: str, seen: int, count: int) -> str:
    """What is missing where something was seen so often, and is to be `count` times or more, or never with 0.

    Empty where nothing is. what is a noun phrase.
    """
    if count == 0:
        return f"the absence of {what}: {seen} seen" if seen else ""
    if seen >= count:
        return ""
    times = f"{count} times " if count > 1 else ""
    return f"{times}{what}{f' ({seen} seen)' if seen else ''}"


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
