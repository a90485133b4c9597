"""One timeline of a recording: its events merged, and each packet followed from interface to interface. Pure.

`merge.py` makes the paths, `attach.py` and `tracking.py` add what was said of each packet; why is `findings.py`'s to
decide. What is drawn or said of it is left to others (`explain.py`, `report/`).
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from netlab.analysis import connections
from netlab.analysis.attach import attach_reasons, attach_traces
from netlab.analysis.datagrams import DatagramPath, follow
from netlab.analysis.merge import Draft, Merge, Tracks, find_copies, helped, tell_ambiguous
from netlab.analysis.paths import PacketPath
from netlab.analysis.told import Told, told
from netlab.analysis.tracking import Unverified, follow_entries
from netlab.conntrack.agreement import Disagreement
from netlab.errors import NetlabError
from netlab.model import Address, Topology
from netlab.record.events import ConntrackEvent, DatagramPacket, Direction, Event, InvalidReason, Packet, SocketEvent
from netlab.record.flow import Ends, Flow, about_canary, ends
from netlab.record.recording import ClosedSocket, CraftedSegment, Recording

ACCURACY = (
    "packets: the kernel's stamp at the interface, in nanoseconds",
    "conntrack's reasons: the kernel's stamp, cut off to microseconds, so up to 1 us early",
    "everything else: the moment it was read, so it can only be late",
)
"""How good each time in a timeline is; all are of one clock."""


@dataclass(frozen=True)
class Timeline:
    """A recording in order. flows are the recording's, and those that its conntrack events show besides if it has all.

    datagram_paths are the packets without TCP. events are all of its events by time. loose are reasons about packets of
    these flows that no interface saw. unverified says of which namespaces the kernel's log was not compared with the
    model, and why. own_tables are those of the topology's own, by namespace, family and name. lazily_expired are the
    entries that had run out when a packet came, with the packet's arrival: conntrack tells of their end only then, a
    little later. topology is the lab's, None where its text can't be read; homes has the namespace of each of its
    addresses. forged are the numbers of the packets that a step of the experiment made. ran_out are the entries that
    ended for want of packets, with their timeout in seconds. told is the kernel's own word on packets.
    """

    recording: Recording
    flows: tuple[Flow, ...]
    paths: tuple[PacketPath, ...]
    events: tuple[Event, ...]
    loose: tuple[InvalidReason, ...] = ()
    disagreements: tuple[tuple[int, Disagreement], ...] = ()
    unverified: tuple[Unverified, ...] = ()
    datagram_paths: tuple[DatagramPath, ...] = ()
    own_tables: frozenset[tuple[str, str, str]] = frozenset()
    lazily_expired: Mapping[ConntrackEvent, int] = field(default_factory=dict)
    topology: Topology | None = None
    homes: Mapping[Address, str] = field(default_factory=dict)
    forged: frozenset[int] = frozenset()
    ran_out: Mapping[ConntrackEvent, int] = field(default_factory=dict)
    told: Told = field(default_factory=Told)

    def moment(self, event: ConntrackEvent) -> int:
        """When conntrack told of it, or the arrival of the packet that made it notice."""
        return self.lazily_expired.get(event, event.time_ns)

    @cached_property
    def of_sockets(self) -> tuple[SocketEvent, ...]:
        """What the programs were told at their sockets: a few among many events."""
        return tuple(event for event in self.events if isinstance(event, SocketEvent))

    @cached_property
    def closed(self) -> tuple[ClosedSocket, ...]:
        """The sockets that netlab closed itself."""
        made = (made for stimulus in self.recording.stimuli for made in stimulus.made)
        return tuple(each for each in made if isinstance(each, ClosedSocket))

    @cached_property
    def _of(self) -> dict[Ends, list[PacketPath]]:
        paths: dict[Ends, list[PacketPath]] = defaultdict(list)
        for path in self.paths:
            paths[path.flow.headers()[0]].append(path)
        return paths

    def of(self, flow: Flow) -> Sequence[PacketPath]:
        """The packets of one flow, in the order in which they were first seen."""
        return self._of.get(flow.headers()[0], [])

    @cached_property
    def _known(self) -> dict[Ends, Flow]:
        return {flow.headers()[0]: flow for flow in reversed(self.flows)}

    def known(self, flow: Flow) -> Flow:
        """A flow with all that was found of it: who made it may not know of its translations."""
        return self._known.get(flow.headers()[0], flow)

    def expected_by(self, flow: Flow) -> list[Flow]:
        """The flows that conntrack expected because of this one: RELATED ones, by their entries' own word."""
        legs = flow.legs()
        headers = {
            ends(event.tuple_orig)
            for event in self.events
            if isinstance(event, ConntrackEvent) and event.tuple_master and ends(event.tuple_master) in legs
        }
        return [other for other in self.flows if headers & other.legs().keys()]


def build(recording: Recording) -> Timeline:
    """The recording's packets as paths, each with what conntrack, the rules and the model say of it."""
    # A million small values and no cycle among them: looking for cycles again and again doubles the time it takes.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _build(recording)
    finally:
        if collects:
            gc.enable()


def _build(recording: Recording) -> Timeline:
    events = tuple(sorted(recording.events, key=lambda event: event.time_ns))
    topology = _topology(recording)
    found = connections.connections_in(topology, events) if topology is not None and not recording.in_part else ()
    flows = connections.completed(recording.flows, found)
    homes = connections.homes(topology) if topology is not None else {}
    tracks = Tracks(flows, events)
    with_helper = helped(flows, events)
    merge = Merge(flows, tracks, {index for index, _ in with_helper})
    for packet in _in_order((event for event in events if isinstance(event, Packet)), _bridges(topology)):
        merge.packet(packet)
    drafts = sorted(merge.drafts, key=lambda draft: draft.time_ns)
    everything: list[Draft | DatagramPath] = [*drafts, *_datagram_paths(events, topology, homes)]
    datagram_paths = []
    for number, each in enumerate(sorted(everything, key=lambda each: each.time_ns), 1):
        if isinstance(each, Draft):
            each.number = number
        else:
            datagram_paths.append(replace(each, number=number))
    tell_ambiguous(drafts, flows, homes)
    loose = attach_reasons(drafts, events, tracks)
    attach_traces(drafts, events, tracks)
    tracking = follow_entries(recording, topology, drafts, events, flows, with_helper)
    find_copies(drafts)
    return Timeline(
        recording,
        flows,
        tuple(draft.path(flows, homes) for draft in drafts),
        events,
        tuple(loose),
        tuple(tracking.disagreements),
        tuple(tracking.unverified),
        tuple(datagram_paths),
        _own_tables(topology),
        tracking.lazily_expired,
        topology,
        homes,
        frozenset(_forged(recording, drafts)),
        tracking.ran_out,
        told(recording, events, drafts),
    )


def _datagram_paths(
    events: Sequence[Event], topology: Topology | None, homes: Mapping[Address, str]
) -> list[DatagramPath]:
    datagrams = [event for event in events if isinstance(event, DatagramPacket) and not about_canary(event.datagram)]
    if not datagrams:
        return []
    return follow(events, _in_order(datagrams, _bridges(topology)), homes)


_CRAFTED_NS = 50_000_000
"""How much later than it was handed over a crafted segment is seen at most."""


def _forged(recording: Recording, drafts: Iterable[Draft]) -> Iterator[int]:
    """The numbers of the packets that a step of the experiment wrote itself."""
    crafted = [made for stimulus in recording.stimuli for made in stimulus.made if isinstance(made, CraftedSegment)]
    for draft in drafts if crafted else ():
        netns, segment = next(iter(draft.places))[0], draft.segment
        for made in crafted:
            same = (made.netns, ends(made.segment)) == (netns, ends(segment)) and made.segment.same_data(segment)
            if same and 0 <= draft.time_ns - made.time_ns <= _CRAFTED_NS:
                yield draft.number


def _own_tables(topology: Topology | None) -> frozenset[tuple[str, str, str]]:
    """The nftables tables that the topology itself gives its namespaces: (netns, family, name)."""
    namespaces = topology.namespaces if topology else ()
    return frozenset((netns.name, table.family, table.name) for netns in namespaces for table in netns.tables)


def _topology(recording: Recording) -> Topology | None:
    """The lab's topology with what was set and fixed; None where the recording has none that can be read."""
    try:
        return recording.spec()
    except NetlabError:
        return None


def _bridges(topology: Topology | None) -> set[tuple[str, str]]:
    return {(i.netns, i.master) for i in topology.interfaces() if i.master is not None} if topology else set()


_AnyPacket = TypeVar("_AnyPacket", Packet, DatagramPacket)


def _in_order(packets: Iterable[_AnyPacket], bridges: set[tuple[str, str]]) -> list[_AnyPacket]:
    """The packets by time. A packet has one stamp for a bridge and its port: the port is first in, and last out."""

    def place(packet: _AnyPacket) -> tuple[int, bool]:
        is_bridge = (packet.netns, packet.ifname) in bridges
        return packet.time_ns, is_bridge is (packet.direction is Direction.IN)

    return sorted(packets, key=place)
