"""A recording: all that was observed of a lab in one stretch of time, and its JSON.

Pure. Observers fill it, everything that explains or draws reads it, on this machine or another. The JSON has one
object a value, with its type's name under "is"; addresses are text, bytes base64.
"""

from __future__ import annotations

import base64
import ipaddress
import typing
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from netlab import events
from netlab.events import Event
from netlab.flow import Flow
from netlab.model import Address


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface whose packets were observed; node, pod or host is its namespace's role."""

    netns: str
    ifname: str
    role: str


@dataclass(frozen=True, slots=True)
class Recording:
    """What the observers saw of a lab.

    lost names each observer and how many events it could not deliver: it is there for every observer that was open,
    with 0 where nothing was lost. blind names what was not observed at all, with the reason ("the rules' traces: …").
    flows are those under study, the first one first. topology is the lab's YAML, settings and fixes what was asked
    beside it.
    """

    lab: str
    kernel: str
    started_ns: int
    ended_ns: int
    topology: str
    settings: tuple[tuple[str, str], ...]
    fixes: tuple[str, ...]
    taps: tuple[Tap, ...]
    flows: tuple[Flow, ...]
    events: tuple[Event, ...]
    lost: tuple[tuple[str, int], ...] = ()
    blind: tuple[str, ...] = ()


_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Recording,
        Tap,
        Flow,
        events.Packet,
        events.Segment,
        events.InvalidReason,
        events.SocketEvent,
        events.ConntrackEvent,
        events.Tuple,
        events.TraceStep,
        events.SocketSample,
        events.CounterChange,
    )
}


def to_json(value: Any) -> Any:
    """A recording, or any value in one, as what json.dumps takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return str(value)
    return value


def from_json(raw: Any) -> Any:
    """The value that `to_json` was given; ValueError, KeyError or TypeError for anything else."""
    kind = _TYPES[raw["is"]]
    hints = typing.get_type_hints(kind)
    return kind(**{name: _typed(item, hints[name]) for name, item in raw.items() if name != "is"})


def _typed(raw: Any, hint: Any) -> Any:
    if isinstance(raw, dict):
        return from_json(raw)
    if isinstance(raw, list):
        inner = [item for item in typing.get_args(hint) if item is not ...]
        return tuple(_typed(item, inner[i] if len(inner) > 1 else inner[0]) for i, item in enumerate(raw))
    if hint is bytes:
        return base64.b64decode(raw, validate=True)
    if hint == Address:
        return ipaddress.ip_address(raw)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(raw)
    return raw
