"""A recording: all that was observed of a lab in one stretch of time, and its JSON.

Pure. Observers fill it, everything that explains or draws reads it, on this machine or another. `codec.py` says how
its JSON is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netlab.record import codec, events
from netlab.record.events import Event
from netlab.record.flow import Flow


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface whose packets were observed; node, pod or host is its namespace's role."""

    netns: str
    ifname: str
    role: str


@dataclass(frozen=True, slots=True)
class Stimulus:
    """A step of the experiment: when it began, and what was done, as a document has it (`push: {end: server}`)."""

    time_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """What the observers saw of a lab.

    lost names each observer and how many events it could not deliver: it is there for every observer that was open,
    with 0 where nothing was lost. blind names what was not observed at all, with the reason ("the rules' traces: …").
    flows are those under study, the first one first. topology is the lab's YAML, settings and fixes what was asked
    beside it; experiment is the text of the experiment's own file, empty where there is none, experiment_settings what
    `--set experiment.…` changed in the experiment. capabilities are those that conntrack's arithmetic depends on
    (`window.DECIDING`), and whether the kernel was found to have them; empty in a recording from before they were
    noted. in_part: of most connections, a load's, only some packets were observed; of `flows` all were.
    stimuli are the steps of all trials, in order.
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
    experiment: str = ""
    capabilities: tuple[tuple[str, bool], ...] = ()
    in_part: bool = False
    experiment_settings: tuple[tuple[str, str], ...] = ()
    stimuli: tuple[Stimulus, ...] = ()


_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Recording,
        Tap,
        Stimulus,
        Flow,
        events.Packet,
        events.Segment,
        events.DatagramPacket,
        events.Datagram,
        events.InvalidReason,
        events.SocketEvent,
        events.ConntrackEvent,
        events.Tuple,
        events.TraceStep,
        events.SocketSample,
        events.CounterChange,
    )
}


to_json = codec.to_json


def from_json(raw: Any) -> Any:
    """The recording, or any value in one, that `to_json` was given; ValueError for anything else."""
    kind = _TYPES.get(raw["is"]) if isinstance(raw, dict) and isinstance(raw.get("is"), str) else None
    if kind is None:
        raise ValueError("nothing that is in a recording")
    return codec.from_json(raw, kind)
