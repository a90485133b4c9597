"""One timeline of a recording: its events merged, and each packet followed from interface to interface. Pure.

A PacketPath is one packet on its way: the interfaces it crossed, how NAT rewrote it, what conntrack and the rules made
of it, and where it ended. A packet is recognised by what neither NAT nor forwarding changes: sequence numbers, flags,
length, window, IP identification, timestamps. A retransmission is a packet of its own. Where several packets look
alike and not all of them arrive, which one did is not guessed: the paths say that they are ambiguous.

What is drawn or said of it is left to others (`explain.py`, `report/`).
"""

from __future__ import annotations

import bisect
import gc
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from netlab.analysis import connections
from netlab.analysis.datagrams import DatagramPath, follow, has_passed
from netlab.conntrack import kernels, tracker
from netlab.conntrack.agreement import BAD_CHECKSUM, Differs, Disagreement, disagreements
from netlab.conntrack.kernels import Rules
from netlab.conntrack.packet import unsound
from netlab.conntrack.values import Checked, CtDirection, CtOutcome
from netlab.errors import NetlabError
from netlab.kubeproxy.notrack import untracks
from netlab.model import Topology
from netlab.record.events import (
    ACK,
    REASON_ACCURACY_NS,
    RST,
    SYN,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    DatagramPacket,
    Direction,
    EntryChange,
    Event,
    InvalidReason,
    Packet,
    Segment,
    TraceStep,
    seq_diff,
)
from netlab.record.flow import CANARY_PORT, Ends, Flow, about_canary, ends, inverse
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording

ACCURACY = (
    "packets: the kernel's stamp at the interface, in nanoseconds",
    "conntrack's reasons: the kernel's stamp, cut off to microseconds, so up to 1 us early",
    "everything else: the moment it was read, so it can only be late",
)
"""How good each time in a timeline is; all are of one clock."""


class Fate(StrEnum):
    """Where a packet ended: at the other end's namespace, at a rule that dropped it, or nobody saw where."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet at one interface. parts are the packets seen there: one, or the segments that GSO split it into."""

    netns: str
    ifname: str
    direction: Direction
    parts: tuple[Packet, ...]

    @property
    def time_ns(self) -> int:
        """When the first part crossed."""
        return self.parts[0].time_ns

    @property
    def ends(self) -> Ends:
        """The addresses the packet had here."""
        return ends(self.parts[0].segment)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """NAT in one namespace: the addresses before and after it. netns is empty where it happened out of sight."""

    netns: str
    before: Ends
    after: Ends


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What the window model makes of a packet in one namespace, and what the kernel logged there."""

    netns: str
    checked: Checked
    reasons: tuple[InvalidReason, ...] = ()

    @property
    def invalid(self) -> bool:
        """Whether the packet is INVALID there, by the model, or by the log where it isn't modelled."""
        return self.checked.outcome is CtOutcome.INVALID


@dataclass(frozen=True, slots=True)
class PacketPath:
    """One packet's way. number counts the recording's packets, from 1, by the time at which each was first seen.

    to_server: its direction, whoever it is addressed to. trace are the rules it came through. copy_of is the number of
    the packet that carried its first byte before, for a retransmission. ambiguous says why it may not be told from
    another packet, empty where it can.
    """

    number: int
    flow: Flow
    to_server: bool
    hops: tuple[Hop, ...]
    fate: Fate
    rewrites: tuple[Rewrite, ...] = ()
    reasons: tuple[InvalidReason, ...] = ()
    trace: tuple[TraceStep, ...] = ()
    checks: tuple[NodeCheck, ...] = ()
    copy_of: int | None = None
    ambiguous: str = ""

    @property
    def segment(self) -> Segment:
        """The packet as it was first seen."""
        return self.hops[0].parts[0].segment

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.hops[0].time_ns

    @property
    def last(self) -> Hop:
        """Where it was last seen."""
        return self.hops[-1]

    def at(self, netns: str, direction: Direction) -> Hop | None:
        """The first interface of the namespace that received or sent it; None if none did."""
        for hop in self.hops:
            if hop.netns == netns and hop.direction is direction:
                return hop
        return None

    def called_invalid(self, netns: str) -> bool:
        """Whether the kernel's rules saw it as INVALID there: it matched `ct state invalid` on its way."""
        return _called_invalid(self.trace, netns)

    @property
    def untranslated(self) -> bool:
        """Whether it reached the client with the endpoint's own address as source."""
        if self.to_server:
            return False
        arrived = self.at(self.flow.client, Direction.IN)
        return arrived is not None and arrived.ends[0] == self.flow.endpoint != self.flow.vip


@dataclass(frozen=True)
class Timeline:
    """A recording in order. flows are the recording's, and those that its conntrack events show besides if it has all.

    datagram_paths are the packets without TCP. events are all of its events by time. loose are reasons about packets of
    these flows that no interface saw. unverified says of which namespaces the kernel's log was not compared with the
    model, and why. own_tables are those of the topology's own, by namespace, family and name. lazily_expired are the
    entries that had run out when a packet came, with the packet's arrival: conntrack tells of their end only then, a
    little later.
    """

    recording: Recording
    flows: tuple[Flow, ...]
    paths: tuple[PacketPath, ...]
    events: tuple[Event, ...]
    loose: tuple[InvalidReason, ...] = ()
    disagreements: tuple[tuple[int, Disagreement], ...] = ()
    unverified: tuple[str, ...] = ()
    datagram_paths: tuple[DatagramPath, ...] = ()
    own_tables: frozenset[tuple[str, str, str]] = frozenset()
    lazily_expired: Mapping[ConntrackEvent, int] = field(default_factory=dict)

    def moment(self, event: ConntrackEvent) -> int:
        """When conntrack told of it, or the arrival of the packet that made it notice."""
        return self.lazily_expired.get(event, event.time_ns)

    @cached_property
    def _of(self) -> dict[Flow, list[PacketPath]]:
        paths: dict[Flow, list[PacketPath]] = defaultdict(list)
        for path in self.paths:
            paths[path.flow].append(path)
        return paths

    def of(self, flow: Flow) -> Sequence[PacketPath]:
        """The packets of one flow, in the order in which they were first seen."""
        return self._of.get(flow, [])

    def expected_by(self, flow: Flow) -> list[Flow]:
        """The flows that conntrack expected because of this one: RELATED ones, by their entries' own word."""
        legs = flow.legs()
        headers = {
            ends(event.tuple_orig)
            for event in self.events
            if isinstance(event, ConntrackEvent) and event.tuple_master and ends(event.tuple_master) in legs
        }
        return [other for other in self.flows if headers & other.legs().keys()]


def _called_invalid(trace: Iterable[TraceStep], netns: str) -> bool:
    return any(
        (step.netns, step.table) == (netns, TRACE_TABLE) and step.chain.startswith(TRACE_INVALID_CHAIN)
        for step in trace
    )


def window_probes(paths: Iterable[PacketPath]) -> frozenset[int]:
    """The numbers of the packets of one flow by which an end asks whether the other's closed window is open again.

    They carry nothing, and have the last number that was sent (tcp_xmit_probe_skb(), net/ipv4/tcp_output.c).
    """
    found: set[int] = set()
    sent: dict[bool, int] = {}
    closed = {True: False, False: False}
    for path in paths:
        segment, way = path.segment, path.to_server
        bare = segment.flags == ACK and not segment.payload_bytes
        if bare and closed[not way] and way in sent and seq_diff(segment.seq, sent[way]) == -1:
            found.add(path.number)
        if not segment.flags & RST:
            closed[way] = segment.window == 0
            if segment.flags & SYN or way not in sent or seq_diff(segment.end, sent[way]) > 0:
                sent[way] = segment.end
    return frozenset(found)


# --- building --------------------------------------------------------------------------------------------------------


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
    tracks = _Tracks(flows, events)
    helped = _helped(flows, events)
    merge = _Merge(flows, tracks, {index for index, _ in helped})
    for packet in _in_order((event for event in events if isinstance(event, Packet)), _bridges(topology)):
        merge.packet(packet)
    drafts = sorted(merge.drafts, key=lambda draft: draft.time_ns)
    everything: list[_Draft | DatagramPath] = [*drafts, *_datagram_paths(events, topology)]
    datagram_paths = []
    for number, each in enumerate(sorted(everything, key=lambda each: each.time_ns), 1):
        if isinstance(each, _Draft):
            each.number = number
        else:
            datagram_paths.append(replace(each, number=number))
    _tell_ambiguous(drafts)
    loose = _attach_reasons(drafts, events, tracks)
    _attach_traces(drafts, events, tracks)
    lazily_expired: dict[ConntrackEvent, int] = {}
    disagreements, unverified = _check(recording, topology, drafts, events, flows, helped, lazily_expired)
    _find_copies(drafts)
    return Timeline(
        recording,
        flows,
        tuple(draft.path(flows) for draft in drafts),
        events,
        tuple(loose),
        tuple(disagreements),
        tuple(unverified),
        tuple(datagram_paths),
        _own_tables(topology),
        lazily_expired,
    )


def _datagram_paths(events: Sequence[Event], topology: Topology | None) -> list[DatagramPath]:
    datagrams = [event for event in events if isinstance(event, DatagramPacket) and not about_canary(event.datagram)]
    if not datagrams:
        return []
    interfaces = topology.interfaces() if topology else ()
    homes = {address.ip: end.netns for end in interfaces for address in end.addresses}
    return follow(events, _in_order(datagrams, _bridges(topology)), homes)


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


# --- packets to paths ---------------------------------------------------------------------------------------------


class _Tracks:
    """Which flow and direction a header belongs to: by the flow's addresses, and by what conntrack translates it to."""

    def __init__(self, flows: Sequence[Flow], events: Iterable[Event]) -> None:
        self._found: dict[tuple[int, int, int, int], tuple[int, bool]] = {}
        for index, flow in enumerate(flows):
            for header in flow.legs():
                if header[1] != CANARY_PORT:
                    self._found.setdefault(_numbers(header), (index, header in flow.headers()))
        for event in events:
            if isinstance(event, ConntrackEvent) and event.tuple_orig.proto == 6:
                self._add(event)

    def _add(self, event: ConntrackEvent) -> None:
        original, reply = ends(event.tuple_orig), ends(event.tuple_reply)
        found = self._found.get(_numbers(original))
        if found is None:
            return
        index, to_server = found
        self._found.setdefault(_numbers(inverse(reply)), (index, to_server))
        for header in (reply, inverse(original)):
            self._found.setdefault(_numbers(header), (index, not to_server))

    def of(self, segment: Segment) -> tuple[int, bool] | None:
        """The flow's index and whether the packet goes to the server; None for a packet of no flow."""
        return self._found.get((int(segment.src), segment.sport, int(segment.dst), segment.dport))


def _numbers(header: Ends) -> tuple[int, int, int, int]:
    """A header to look up by: an address as a number is hashed many times faster."""
    return (int(header[0]), header[1], int(header[2]), header[3])


_Place = tuple[str, str, Direction]
_Key = tuple[int | bool | None, ...]


class _Draft:
    """A path in the making: the packets seen at each place, in the order of the places."""

    def __init__(self, index: int, to_server: bool, place: _Place, packet: Packet, key: _Key) -> None:
        self.index, self.to_server, self.key = index, to_server, key
        self.places: dict[_Place, list[Packet]] = {place: [packet]}
        self.time_ns = packet.time_ns
        self.segment = packet.segment
        self.number = 0
        self.reasons: list[InvalidReason] = []
        self.trace: list[TraceStep] = []
        self.checks: list[NodeCheck] = []
        self.copy_of: int | None = None
        self.ambiguous = ""

    def takes_part(self, place: _Place, segment: Segment) -> bool:
        """Whether a segment seen at a place can be a piece of this super-packet."""
        whole = self.segment
        offset = seq_diff(segment.seq, whole.seq)
        if offset < 0 or segment.payload_bytes >= whole.payload_bytes or seq_diff(whole.end, segment.end) < 0:
            return False
        if segment.ip_id and whole.ip_id and (segment.ip_id - whole.ip_id) & 0xFFFF > whole.payload_bytes:
            return False
        there = self.places.get(place, ())
        return all(part.segment.payload_bytes < whole.payload_bytes for part in there) and all(
            part.segment.seq != segment.seq for part in there
        )

    def path(self, flows: Sequence[Flow]) -> PacketPath:
        flow = flows[self.index]
        hops = tuple(Hop(*place, tuple(parts)) for place, parts in self.places.items())
        rewrites = []
        for before, after in pairwise(hops):
            if before.ends != after.ends:
                seen = before.netns == after.netns
                rewrites.append(Rewrite(before.netns if seen else "", before.ends, after.ends))
        last = hops[-1]
        if last.direction is Direction.IN and last.netns == (flow.server if self.to_server else flow.client):
            fate = Fate.DELIVERED
        else:
            fate = Fate.DROPPED if any(step.verdict == "drop" for step in self.trace) else Fate.UNSEEN
        return PacketPath(
            self.number,
            flow,
            self.to_server,
            hops,
            fate,
            tuple(rewrites),
            tuple(self.reasons),
            tuple(self.trace),
            tuple(self.checks),
            self.copy_of,
            self.ambiguous,
        )


class _Merge:
    """Takes packets in order of time, and puts each where it belongs: to a path, or at the beginning of one."""

    def __init__(self, flows: Sequence[Flow], tracks: _Tracks, helped: Set[int]) -> None:
        self.drafts: list[_Draft] = []
        self._flows, self._tracks, self._helped = flows, tracks, helped
        self._identified: dict[_Key, _Draft] = {}
        self._alike: dict[_Key, list[_Draft]] = defaultdict(list)
        # The pieces of a super-packet have its ack and its timestamp: those with data, and the largest of them.
        self._senders: dict[_Key, list[_Draft]] = defaultdict(list)
        self._largest: dict[_Key, int] = defaultdict(int)

    def packet(self, packet: Packet) -> None:
        segment = packet.segment
        track = self._tracks.of(segment)
        if track is None:
            return
        index, to_server = track
        place = (packet.netns, packet.ifname, packet.direction)
        key = (index, to_server, *_likeness(segment))
        born = packet.direction is Direction.OUT and packet.netns == self._origin(index, to_server)
        draft = self._same(key, place, born)
        if draft is not None:
            draft.places[place] = [packet]
            return
        group = (index, to_server, segment.ack, segment.ts_val)
        if not born and 0 < segment.payload_bytes < self._largest[group]:
            for whole in reversed(self._senders[group]):
                if whole.takes_part(place, segment):
                    whole.places.setdefault(place, []).append(packet)
                    return
        if index in self._helped and (rewritten := self._rewritten(index, to_server, place, packet, born=born)):
            rewritten.places[place] = [packet]
            self._alike[key].append(rewritten)
            return
        draft = _Draft(index, to_server, place, packet, key)
        self.drafts.append(draft)
        self._alike[key].append(draft)
        if index in self._helped:
            self._identified[index, to_server, *_identity(segment)] = draft
        if segment.payload_bytes:
            self._senders[group].append(draft)
            self._largest[group] = max(self._largest[group], segment.payload_bytes)

    def _rewritten(self, index: int, to_server: bool, place: _Place, packet: Packet, *, born: bool) -> _Draft | None:
        """The packet as it came into this namespace, where a helper of conntrack's may have given it another length."""
        draft = self._identified.get((index, to_server, *_identity(packet.segment)))
        if (
            draft is None
            or born
            or packet.direction is Direction.IN
            or place in draft.places
            or not packet.segment.ip_id
        ):
            return None
        netns, _, direction = [*draft.places][-1]
        return draft if (netns, direction) == (place[0], Direction.IN) else None

    def _origin(self, index: int, to_server: bool) -> str:
        return self._flows[index].client if to_server else self._flows[index].server

    def _same(self, key: _Key, place: _Place, born: bool) -> _Draft | None:
        """The path to go on: of those alike that haven't been here the one that is farthest, then the oldest."""
        best: _Draft | None = None
        for draft in self._alike.get(key, ()):
            if place in draft.places or (born and any(netns != place[0] for netns, _, _ in draft.places)):
                continue
            if best is None or len(draft.places) > len(best.places):
                best = draft
        return best


def _helped(flows: Sequence[Flow], events: Iterable[Event]) -> set[tuple[int, str]]:
    """The flows, by index, that a helper of conntrack's reads along in, and where: it may rewrite what they carry."""
    headers = {
        (event.netns, ends(event.tuple_orig))
        for event in events
        if isinstance(event, ConntrackEvent) and "HELPER" in event.status
    }
    return {(index, netns) for netns, header in headers for index, flow in enumerate(flows) if header in flow.legs()}


def _identity(segment: Segment) -> tuple[int | None, ...]:
    """What a helper that gives a packet another length, and the following ones other numbers, leaves as it is."""
    return (segment.flags, segment.ip_id, segment.ts_val, segment.window)


def _likeness(segment: Segment) -> tuple[int | None, ...]:
    """What stays the same on all of a packet's way."""
    return (
        segment.seq,
        segment.ack,
        segment.flags,
        segment.payload_bytes,
        segment.window,
        segment.ip_id,
        segment.ts_val,
        segment.ts_ecr,
        segment.sack_edge,
    )


def _tell_ambiguous(drafts: Iterable[_Draft]) -> None:
    """Mark packets that look alike where not all of them came equally far: which one did, nobody can say."""
    alike: dict[_Key, list[_Draft]] = defaultdict(list)
    for draft in drafts:
        alike[draft.key].append(draft)
    for group in alike.values():
        if len(group) > 1 and any(draft.places.keys() != group[0].places.keys() for draft in group):
            numbers = " and ".join(f"#{draft.number}" for draft in group)
            for draft in group:
                draft.ambiguous = f"{numbers} look alike, and not all of them came as far: which did can't be told"


def _find_copies(drafts: Iterable[_Draft]) -> None:
    """Mark what carries data that was sent before, with the packet that carried its first byte."""
    sent: dict[tuple[int, bool], _Sent] = {}
    for draft in drafts:
        segment, track = draft.segment, (draft.index, draft.to_server)
        if segment.end != segment.seq:
            if track not in sent or (segment.flags & SYN and segment.seq != sent[track].base):
                sent[track] = _Sent(segment.seq)
            draft.copy_of = sent[track].copy_of(draft.number, segment)


class _Sent:
    """The data that one end has sent: pieces in order, each with the packet that carried it first."""

    def __init__(self, base: int) -> None:
        self.base = base
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._numbers: list[int] = []

    def copy_of(self, number: int, segment: Segment) -> int | None:
        """The packet that carried the segment's first byte before, None if none did; its data counts as sent."""
        start = seq_diff(segment.seq, self.base)
        end = start + seq_diff(segment.end, segment.seq)
        place = bisect.bisect_right(self._starts, start) - 1
        before = None
        if place >= 0 and start < self._ends[place]:
            before, start = self._numbers[place], self._ends[place]
        following = self._starts[place + 1] if place + 1 < len(self._starts) else end
        if start < min(end, following):
            self._starts.insert(place + 1, start)
            self._ends.insert(place + 1, min(end, following))
            self._numbers.insert(place + 1, number)
        return before


# --- reasons and traces to their packets -----------------------------------------------------------------------------


_Header = tuple[str, tuple[int, bool], int, int, int, int, int]


def _header(netns: str, track: tuple[int, bool], segment: Segment) -> _Header:
    return (netns, track, segment.seq, segment.ack, segment.flags, segment.payload_bytes, segment.ip_id)


def _arrivals(drafts: Iterable[_Draft], wanted: Set[_Header]) -> dict[_Header, list[tuple[int, _Draft]]]:
    """Where the wanted packets first came into each namespace, in order of time."""
    found: dict[_Header, list[tuple[int, _Draft]]] = defaultdict(list)
    for draft in drafts if wanted else ():
        track = (draft.index, draft.to_server)
        seen: set[str] = set()
        for (netns, _, direction), parts in draft.places.items():
            if direction is Direction.IN and netns not in seen:
                seen.add(netns)
                for part in parts:
                    header = _header(netns, track, part.segment)
                    if header in wanted:
                        found[header].append((part.time_ns, draft))
    for arrivals in found.values():
        arrivals.sort(key=lambda arrival: arrival[0])
    return found


def _attach_reasons(drafts: Iterable[_Draft], events: Iterable[Event], tracks: _Tracks) -> list[InvalidReason]:
    """Give each reason to the packet that came in last before it; those of these flows that find none are returned."""
    headers = [
        (event, _header(event.netns, track, event.segment))
        for event in events
        if isinstance(event, InvalidReason) and (track := tracks.of(event.segment)) is not None
    ]
    arrivals = _arrivals(drafts, {header for _, header in headers})
    loose = []
    for event, shown in headers:
        before = [
            draft
            for time_ns, draft in arrivals.get(shown, ())
            if time_ns < event.time_ns + REASON_ACCURACY_NS
            and not any(_same_line(reason, event) for reason in draft.reasons)
        ]
        if before:
            before[-1].reasons.append(event)
        else:
            loose.append(event)
    return loose


def _same_line(one: InvalidReason, other: InvalidReason) -> bool:
    """Whether both are the same words about the same piece of a packet: then the packets are two that look alike."""
    return (one.netns, one.text, one.segment.seq) == (other.netns, other.text, other.segment.seq)


def _attach_traces(drafts: Iterable[_Draft], events: Iterable[Event], tracks: _Tracks) -> None:
    """Give each traced packet's steps to the first packet with that header that wasn't in that chain yet."""
    steps: list[tuple[TraceStep, _Header | None]] = []
    for event in events:
        if isinstance(event, TraceStep):
            header: _Header | None = None
            if event.segment is not None and (track := tracks.of(event.segment)) is not None:
                header = _header(event.netns, track, event.segment)
            steps.append((event, header))
    arrivals = _arrivals(drafts, {shown for _, shown in steps if shown is not None})
    way: dict[tuple[str, int], _Draft | None] = {}
    last: dict[tuple[str, int], _Header] = {}
    for step, shown in steps:
        trace = (step.netns, step.trace_id)
        draft = way.get(trace)
        # The kernel may give a number again, to a packet that looks much like the one before, as window probes do.
        if shown is not None and (last.get(trace) != shown or (draft and has_passed(draft.trace, step))):
            last[trace] = shown
            found = (draft for _, draft in arrivals.get(shown, ()) if not has_passed(draft.trace, step))
            draft = way[trace] = next(found, None)
        if draft:
            draft.trace.append(step)


# --- the model -------------------------------------------------------------------------------------------------------


def _check(
    recording: Recording,
    topology: Topology | None,
    drafts: Sequence[_Draft],
    events: Sequence[Event],
    flows: Sequence[Flow],
    helped: Set[tuple[int, str]],
    lazily_expired: dict[ConntrackEvent, int],
) -> tuple[list[tuple[int, Disagreement]], list[str]]:
    """Follow each flow with the model on each node that tracks it; and hold it against what the kernel logged.

    What the Timeline has of that name is put into `lazily_expired`.
    """
    entries: dict[str, list[ConntrackEvent]] = defaultdict(list)
    tracking = {flow.node for flow in flows if flow.node is not None}
    for event in events:
        if isinstance(event, ConntrackEvent):
            entries[event.netns].append(event)
        if isinstance(event, ConntrackEvent | InvalidReason):
            tracking.add(event.netns)
    lost = dict(recording.lost)
    by_flow: dict[int, list[_Draft]] = defaultdict(list)
    for draft in drafts:
        by_flow[draft.index].append(draft)
    found: list[tuple[int, Disagreement]] = []
    unverified: list[str] = []
    for netns in sorted(tracking):
        missing = sum(
            count
            for observer, count in recording.lost
            if (observer.kind, observer.netns) == (ObserverKind.PACKETS, netns)
        )
        if missing:
            unverified.append(f"{netns}: {missing:,} packets were lost there, so what conntrack knew can't be computed")
            continue
        rules = _rules(recording, topology, netns)
        log = ObserverId(ObserverKind.REASONS, netns)
        heard = lost.get(log) == 0
        if not heard:
            why = f"{lost[log]:,} of its log lines were lost" if log in lost else "its log was not read"
            unverified.append(f"{netns}: {why}")
        mine = _by_flow(entries[netns], flows)
        for index, theirs in by_flow.items():
            if topology is not None and untracks(topology, netns, flows[index].vip, flows[index].port):
                continue
            if (index, netns) in helped:
                unverified.append(f"{netns}: a helper rewrites what {flows[index].client_address} sends and gets there")
                continue
            pairs = _follow(flows[index], theirs, netns, rules, mine.get(index, []), lazily_expired)
            numbers = {id(check.packet): draft.number for draft, check, _ in pairs}
            found += [
                (numbers[id(differs.packet)], differs)
                for differs in disagreements((check, reasons) for _, check, reasons in pairs)
                if heard or differs.kind is not Differs.PREDICTED_ONLY
            ]
    return sorted(found, key=lambda item: item[0]), unverified


def _by_flow(entries: Iterable[ConntrackEvent], flows: Sequence[Flow]) -> dict[int, list[ConntrackEvent]]:
    clients = {(flow.client_address, flow.client_port): index for index, flow in enumerate(flows)}
    found: dict[int, list[ConntrackEvent]] = defaultdict(list)
    for entry in entries:
        for header in (entry.tuple_orig, entry.tuple_reply):
            index = clients.get((header.src, header.sport), clients.get((header.dst, header.dport)))
            if index is not None:
                found[index].append(entry)
                break
    return found


def _follow(
    flow: Flow,
    drafts: Iterable[_Draft],
    netns: str,
    rules: Rules,
    entries: Sequence[ConntrackEvent],
    lazily_expired: dict[ConntrackEvent, int],
) -> list[tuple[_Draft, Checked, Sequence[InvalidReason]]]:
    arrivals: list[tuple[Packet, _Draft]] = []
    for draft in drafts:
        for (where, _, direction), parts in draft.places.items():
            if where == netns and direction is Direction.IN:
                arrivals += [(part, draft) for part in parts]
                break
    arrivals.sort(key=lambda arrival: arrival[0].time_ns)
    whole = bool(arrivals) and bool(arrivals[0][0].segment.flags & SYN)
    heard = [
        (packet, draft, tuple(r for r in draft.reasons if r.netns == netns and r.segment.seq == packet.segment.seq))
        for packet, draft in arrivals
    ]
    sound = [packet for packet, _, here in heard if not any(map(_tells_bad_checksum, here))]
    lazily_expired.update(
        {entry: arrival.time_ns for entry in entries if (arrival := _finder(entry, netns, arrivals, entries))}
    )
    in_step = [replace(entry, time_ns=lazily_expired[entry]) if entry in lazily_expired else entry for entry in entries]
    translations = flow.translations()
    checked = iter(tracker.follow(sound, rules, translations=translations, entries=in_step, whole=whole))
    pairs: list[tuple[_Draft, Checked, Sequence[InvalidReason]]] = []
    for packet, draft, here in heard:
        bad = next(filter(_tells_bad_checksum, here), None)
        own = packet.segment.src == flow.client_address
        way = CtDirection.ORIGINAL if own else CtDirection.REPLY
        check = unsound(packet, way, bad.text) if bad is not None else next(checked)
        draft.checks.append(NodeCheck(netns, check, here))
        pairs.append((draft, check, here))
    return pairs


def _finder(
    entry: ConntrackEvent,
    netns: str,
    arrivals: Sequence[tuple[Packet, _Draft]],
    entries: Iterable[ConntrackEvent],
) -> Packet | None:
    """The packet whose look-up ended an entry that had run out; None where it ended otherwise."""

    def came_by(time_ns: int) -> int:
        return bisect.bisect_right(arrivals, time_ns, key=lambda arrival: arrival[0].time_ns)

    orig, reply, came = entry.tuple_orig, entry.tuple_reply, came_by(entry.time_ns)
    translates = ends(orig) != (reply.dst, reply.dport, reply.src, reply.sport)
    if entry.change is not EntryChange.DESTROY or not translates or came == 0:
        return None
    packet, draft = arrivals[came - 1]
    if packet.segment.flags & SYN:  # it may reopen the connection: that ends an entry that was still there
        return None
    header = ends(packet.segment)
    for new in entries:
        mine = new.change is EntryChange.NEW and ends(new.tuple_orig) == header and new.time_ns >= entry.time_ns
        if mine and came_by(new.time_ns) == came:
            return packet
    left = [parts[0] for (where, _, way), parts in draft.places.items() if (where, way) == (netns, Direction.OUT)]
    if left:
        return packet if left[0].time_ns >= entry.time_ns and ends(left[0].segment) == header else None
    return packet if _called_invalid(draft.trace, netns) else None


def _tells_bad_checksum(reason: InvalidReason) -> bool:
    return BAD_CHECKSUM in reason.text


def _rules(recording: Recording, topology: Topology | None, netns: str) -> Rules:
    """The kernel's rules with the sysctls that the topology sets in the namespace."""
    values: dict[str, str] = {}
    for candidate in topology.namespaces if topology else ():
        if candidate.name == netns:
            values = {key.replace("/", ".").rpartition(".")[2]: value for key, value in candidate.sysctls}
    return kernels.rules(recording.kernel, recording.capabilities, values)
