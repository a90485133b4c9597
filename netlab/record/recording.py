"""A recording: all that was observed of a lab in one stretch of time, and its JSON.

Pure. Observers fill it, everything that explains or draws reads it, on this machine or another. `codec.py` says how
its JSON is made.
"""

from __future__ import annotations

from copy import copy
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from typing import Any

from netlab.errors import NetlabError
from netlab.model import Topology
from netlab.record import codec, events, format1, observers
from netlab.record.domains import TimeNs, Word
from netlab.record.events import Event, Segment, Tuple
from netlab.record.flow import Flow
from netlab.record.network import NetworkState
from netlab.record.observers import ObserverId, Unobserved
from netlab.topology import load_with_fixes


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface whose packets were observed; node, pod or host is its namespace's role."""

    netns: Word
    ifname: Word
    role: Word


@dataclass(frozen=True, slots=True)
class CraftedSegment:
    """A segment that a step wrote by hand: no socket sent it. It is as it left; its IP id is the kernel's choice."""

    time_ns: TimeNs
    netns: Word
    segment: Segment


@dataclass(frozen=True, slots=True)
class ClosedSocket:
    """A socket that a step, or netlab at the end of a trial, closed: what it sends from then on is netlab's doing.

    header is that of the packets that the socket sends. silently: it was forgotten, without a packet.
    """

    time_ns: TimeNs
    netns: Word
    header: Tuple
    silently: bool = False


@dataclass(frozen=True, slots=True)
class Stimulus:
    """A step of the experiment: when it began, and what was done, as a document has it (`push: {end: server}`).

    made is what it did itself that looks like the connection's own doing. At the end of a trial netlab closes the
    sockets that are still open: that is a Stimulus without text.
    """

    time_ns: TimeNs
    text: str
    made: tuple[CraftedSegment | ClosedSocket, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """What the observers saw of a lab.

    lost has each observer that was open and how many events it could not deliver, 0 where nothing was lost; unobserved
    is what was not observed, or not to the end, with the reason. flows are those under study, the first one first.
    topology is the lab's YAML, settings and fixes what was asked beside it: `spec()` is what they describe. experiment
    is the text of the experiment's own file, empty where there is none, experiment_settings what `--set experiment.…`
    changed in the experiment. capabilities are those that conntrack's arithmetic depends on (`kernels.DECIDING`), and
    whether the kernel was found to have them; empty in a recording from before they were noted. in_part: of most
    connections, a load's, only some packets were observed; of `flows` all were. stimuli are the steps of all trials,
    in order. network has each namespace as it was at the beginning, and at the end; nothing in a recording from before
    it was noted. described is the topology that a recorder knows already.
    """

    lab: Word
    kernel: Word
    started_ns: TimeNs
    ended_ns: TimeNs
    topology: str
    settings: tuple[tuple[str, str], ...]
    fixes: tuple[str, ...]
    taps: tuple[Tap, ...]
    flows: tuple[Flow, ...]
    events: tuple[Event, ...]
    lost: tuple[tuple[ObserverId, int], ...] = ()
    unobserved: tuple[Unobserved, ...] = ()
    experiment: str = ""
    capabilities: tuple[tuple[str, bool], ...] = ()
    in_part: bool = False
    experiment_settings: tuple[tuple[str, str], ...] = ()
    stimuli: tuple[Stimulus, ...] = ()
    network: tuple[NetworkState, ...] = ()
    described: InitVar[Topology | None] = None
    _described: Topology | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self, described: Topology | None) -> None:
        object.__setattr__(self, "_described", described)

    def spec(self) -> Topology:
        """The lab as it was asked for, with settings and fixes; NetlabError where this netlab can't read its text.

        Who makes a recording of a lab that it knows gives it as `described`; otherwise the text is read, once.
        """
        if self._described is not None:
            return self._described
        found = _read(self.lab, self.topology, self.settings, self.fixes)
        if isinstance(found, NetlabError):
            raise copy(found)  # one that is raised again and again keeps what all its raisers worked on
        return found

    def network_of(self, netns: str, time_ns: int) -> NetworkState | None:
        """A namespace as it was last noted before a moment, or first after it; None where it was not noted."""
        noted = sorted((each for each in self.network if each.netns == netns), key=lambda each: each.time_ns)
        before = [each for each in noted if each.time_ns <= time_ns]
        return before[-1] if before else noted[0] if noted else None


@lru_cache(maxsize=4)
def _read(lab: str, text: str, settings: tuple[tuple[str, str], ...], fixes: tuple[str, ...]) -> Topology | NetlabError:
    try:
        return load_with_fixes(text, f"{lab}.yaml", settings, lab, fixes)
    except NetlabError as error:
        return error.with_traceback(None)


_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Recording,
        Tap,
        Stimulus,
        CraftedSegment,
        ClosedSocket,
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
        events.PacketDrop,
        events.TcpReset,
        events.SocketSample,
        events.SocketClosed,
        events.CounterChange,
        events.NeighbourChange,
        events.RouteChange,
        events.InterfaceChange,
        NetworkState,
        observers.ObserverId,
        observers.Unobserved,
    )
}


to_json = codec.to_json


def from_json(raw: Any) -> Any:
    """The recording, or any value in one, that `to_json` was given; ValueError for anything else."""
    kind = _TYPES.get(raw["is"]) if isinstance(raw, dict) and isinstance(raw.get("is"), str) else None
    if kind is None:
        raise ValueError("nothing that is in a recording")
    return recording_from_json(raw) if kind is Recording else codec.from_json(raw, kind)


def recording_from_json(raw: Any) -> Recording:
    """The recording, of any format, that `to_json` was given; ValueError for anything else."""
    found = codec.from_json(format1.upgraded(raw) if isinstance(raw, dict) else raw, Recording)
    assert isinstance(found, Recording)
    if unknown := _unknown_namespaces(found):
        raise ValueError(f"its topology has no namespace {unknown[0]!r:.40}")
    return found


def _unknown_namespaces(recording: Recording) -> list[str]:
    """The namespaces that something was seen in, and that its topology hasn't; none where nobody can read that."""
    try:
        known = {netns.name for netns in recording.spec().namespaces}
    except NetlabError:
        return []
    named = {event.netns for event in recording.events} | {tap.netns for tap in recording.taps}
    named |= {state.netns for state in recording.network}
    for flow in recording.flows:
        named |= {flow.client, flow.server, flow.node or "", flow.server_node or ""}
    return sorted(named - known - {""})
