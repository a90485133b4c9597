"""Packets seen at interfaces put together: each to the path of the packet that it is. Pure.

A packet is recognised by what neither NAT nor forwarding changes: sequence numbers, flags, length, window, IP
identification, timestamps. A retransmission is a packet of its own. Where several packets look alike and not all of
them arrive, which one did is not guessed: the paths say that they are ambiguous.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise

from netlab.analysis.paths import Fate, Hop, NodeCheck, PacketPath, Place, Rewrite
from netlab.model import Address
from netlab.record.events import (
    SYN,
    ConntrackEvent,
    Direction,
    Event,
    InvalidReason,
    Packet,
    Segment,
    TraceStep,
    seq_diff,
)
from netlab.record.flow import CANARY_PORT, Ends, Flow, ends, inverse


class Tracks:
    """Which flow and direction a header belongs to: by the flow's addresses, and by what conntrack translates it to."""

    def __init__(self, flows: Sequence[Flow], events: Iterable[Event]) -> None:
        self._found: dict[tuple[int, int, int, int], tuple[int, bool]] = {}
        for index, flow in enumerate(flows):
            own = (*flow.headers(), *flow.between())
            for header in flow.legs():
                if header[1] != CANARY_PORT:
                    self._found.setdefault(_numbers(header), (index, header in own))
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


Key = tuple[int | bool | None, ...]


class Draft:
    """A path in the making: the packets seen at each place, in the order of the places."""

    def __init__(self, index: int, to_server: bool, place: Place, packet: Packet, key: Key) -> None:
        self.index, self.to_server, self.key = index, to_server, key
        self.places: dict[Place, list[Packet]] = {place: [packet]}
        self.time_ns = packet.time_ns
        self.segment = packet.segment
        self.number = 0
        self.reasons: list[InvalidReason] = []
        self.trace: list[TraceStep] = []
        self.checks: list[NodeCheck] = []
        self.copy_of: int | None = None
        self.ambiguous = ""

    def takes_part(self, place: Place, segment: Segment) -> bool:
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

    def at_home(self, flows: Sequence[Flow], homes: Mapping[Address, str]) -> bool:
        """Whether it was last seen coming into the namespace that it is for, by its flow or by its last header."""
        netns, ifname, direction = next(reversed(self.places))
        flow, header = flows[self.index], ends(self.places[netns, ifname, direction][0].segment)
        own = flow.server if self.to_server else flow.client
        return direction is Direction.IN and netns in (own, homes.get(header[2]))

    def path(self, flows: Sequence[Flow], homes: Mapping[Address, str]) -> PacketPath:
        """The finished path; homes are the namespaces of the lab's addresses."""
        flow = flows[self.index]
        hops = tuple(Hop(*place, tuple(parts)) for place, parts in self.places.items())
        rewrites: list[Rewrite] = []
        for before, after in pairwise(hops):
            if before.ends != after.ends:
                netns = before.netns if before.netns == after.netns else ""
                whole = Rewrite(netns, before.ends, after.ends)
                if rewrites and (rewrites[-1].netns, rewrites[-1].after) == (netns, before.ends):
                    whole = Rewrite(netns, rewrites.pop().before, after.ends)
                rewrites.append(whole)
        last = hops[-1]
        dropped = [step.netns for step in self.trace if step.verdict == "drop"]
        fate = Fate.DROPPED if dropped else Fate.UNSEEN
        if self.at_home(flows, homes) and last.netns not in dropped:
            fate = Fate.DELIVERED
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


class Merge:
    """Takes packets in order of time, and puts each where it belongs: to a path, or at the beginning of one."""

    def __init__(self, flows: Sequence[Flow], tracks: Tracks, helped: Set[int]) -> None:
        self.drafts: list[Draft] = []
        self._flows, self._tracks, self._helped = flows, tracks, helped
        self._identified: dict[Key, Draft] = {}
        self._alike: dict[Key, list[Draft]] = defaultdict(list)
        # The pieces of a super-packet have its ack and its timestamp: those with data, and the largest of them.
        self._senders: dict[Key, list[Draft]] = defaultdict(list)
        self._largest: dict[Key, int] = defaultdict(int)

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
        draft = Draft(index, to_server, place, packet, key)
        self.drafts.append(draft)
        self._alike[key].append(draft)
        if index in self._helped:
            self._identified[index, to_server, *_identity(segment)] = draft
        if segment.payload_bytes:
            self._senders[group].append(draft)
            self._largest[group] = max(self._largest[group], segment.payload_bytes)

    def _rewritten(self, index: int, to_server: bool, place: Place, packet: Packet, *, born: bool) -> Draft | None:
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

    def _same(self, key: Key, place: Place, born: bool) -> Draft | None:
        """The path to go on: of those alike that haven't been here the one that is farthest, then the oldest."""
        best: Draft | None = None
        for draft in self._alike.get(key, ()):
            if place in draft.places or (born and any(netns != place[0] for netns, _, _ in draft.places)):
                continue
            if best is None or len(draft.places) > len(best.places):
                best = draft
        return best


def helped(flows: Sequence[Flow], events: Iterable[Event]) -> set[tuple[int, str]]:
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


def tell_ambiguous(drafts: Iterable[Draft], flows: Sequence[Flow], homes: Mapping[Address, str]) -> None:
    """Mark packets that look alike where not all of them came equally far: which one did, nobody can say.

    What had arrived before the next one was sent can't be mistaken for that.
    """
    alike: dict[Key, list[Draft]] = defaultdict(list)
    for draft in drafts:
        alike[draft.key].append(draft)
    for group in alike.values():
        over = [
            one.at_home(flows, homes) and max(parts[0].time_ns for parts in one.places.values()) < other.time_ns
            for one, other in pairwise(group)
        ]
        if any(draft.places.keys() != group[0].places.keys() for draft in group) and not all(over):
            numbers = " and ".join(f"#{draft.number}" for draft in group)
            for draft in group:
                draft.ambiguous = f"{numbers} look alike, and not all of them came as far: which did can't be told"


def find_copies(drafts: Iterable[Draft]) -> None:
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
