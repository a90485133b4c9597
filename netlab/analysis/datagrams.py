"""Packets without TCP followed from interface to interface: UDP datagrams and ICMP's errors. Pure.

A packet is recognised by what neither NAT nor forwarding changes: protocol, length, ICMP type and code, and IP
identification. Where that is 0, as in IPv6 and from many UDP sockets, its addresses must be what NAT can have made of
them, too. `timeline.py` numbers these packets together with the TCP segments, which it follows itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from netlab.model import Address
from netlab.record.events import ConntrackEvent, Datagram, DatagramPacket, Direction, Event, TraceStep, Tuple

_SAME_WAY_NS = 1_000_000_000
"""What looks alike and comes this much later is another packet: no packet of a lab is on its way for so long."""

_Rewrite: TypeAlias = tuple[str, Tuple, Tuple]
"""The namespace, a header there, and what it becomes."""


@dataclass(frozen=True, slots=True)
class DatagramPath:
    """One datagram's way: where it was seen, in order, and the rules it came through there.

    number is the recording's, as a PacketPath's. delivered: it was last seen coming in where its destination's address
    is.
    """

    number: int
    hops: tuple[DatagramPacket, ...]
    delivered: bool
    trace: tuple[TraceStep, ...] = ()

    @property
    def datagram(self) -> Datagram:
        """The datagram as it was first seen."""
        return self.hops[0].datagram

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.hops[0].time_ns

    @property
    def last(self) -> DatagramPacket:
        """Where it was last seen."""
        return self.hops[-1]


class _Draft:
    """A datagram_path in the making."""

    def __init__(self, packet: DatagramPacket) -> None:
        self.hops = [packet]
        self.trace: list[TraceStep] = []

    def goes_on_with(self, packet: DatagramPacket, entries: Collection[_Rewrite]) -> bool:
        """Whether a datagram that looks like it can be the same one, farther on its way."""
        last = self.hops[-1]
        if not packet.datagram.ip_id and not _can_become(last, packet, entries):
            return False
        hops = {(hop.netns, hop.ifname, hop.direction) for hop in self.hops}
        here = (packet.netns, packet.ifname, packet.direction)
        return here not in hops and packet.time_ns - last.time_ns < _SAME_WAY_NS


def follow(
    events: Iterable[Event], in_order: Iterable[DatagramPacket], homes: Mapping[Address, str]
) -> list[DatagramPath]:
    """The datagrams' ways by the time at which each began, not numbered yet.

    in_order are the datagrams as they crossed the interfaces, homes the namespaces of the lab's addresses.
    """
    events = tuple(events)
    entries = set(_rewrites(events))
    drafts: list[_Draft] = []
    alike: dict[tuple[int | None, ...], list[_Draft]] = defaultdict(list)
    for packet in in_order:
        key = _likeness(packet.datagram)
        draft = next((draft for draft in alike[key] if draft.goes_on_with(packet, entries)), None)
        if draft is None:
            draft = _Draft(packet)
            drafts.append(draft)
            alike[key].append(draft)
        else:
            draft.hops.append(packet)
    _attach_traces(drafts, events)
    return [
        DatagramPath(0, tuple(draft.hops), _delivered(draft.hops[-1], homes), tuple(draft.trace)) for draft in drafts
    ]


def _rewrites(events: Iterable[Event]) -> Iterator[_Rewrite]:
    """What entries make of headers, of both directions."""
    for event in events:
        if isinstance(event, ConntrackEvent):
            original, reply = event.tuple_orig, event.tuple_reply
            yield event.netns, original, _inverse(reply)
            yield event.netns, reply, _inverse(original)


def _can_become(last: DatagramPacket, packet: DatagramPacket, entries: Collection[_Rewrite]) -> bool:
    """Whether a datagram's header can have become another's: in one namespace, by an entry or with one end kept."""
    before, after = last.datagram.header, packet.datagram.header
    if before == after or (last.netns, before, after) in entries:
        return True
    one_end_kept = (before.src, before.sport) == (after.src, after.sport) or (before.dst, before.dport) == (
        after.dst,
        after.dport,
    )
    return last.netns == packet.netns and one_end_kept


def _inverse(header: Tuple) -> Tuple:
    return Tuple(header.dst, header.dport, header.src, header.sport, header.proto)


def _likeness(datagram: Datagram) -> tuple[int | None, ...]:
    """What stays the same on all of a packet's way."""
    icmp = (datagram.icmp_type, datagram.icmp_code)
    return (datagram.header.proto, datagram.payload_bytes, datagram.ip_id, *icmp)


def _delivered(last: DatagramPacket, homes: Mapping[Address, str]) -> bool:
    return last.direction is Direction.IN and homes.get(last.datagram.header.dst) == last.netns


def _attach_traces(drafts: Iterable[_Draft], events: Iterable[Event]) -> None:
    """Give each traced packet's steps to the first datagram with that header that has none there yet."""
    ways: dict[tuple[str, int], _Draft | None] = {}
    for step in events:
        if not isinstance(step, TraceStep):
            continue
        trace = (step.netns, step.trace_id)
        draft, shown = ways.get(trace), step.datagram
        # The kernel may give a number again.
        if shown is not None and not (draft and _can_show(step, shown, draft)):
            draft = ways[trace] = next((draft for draft in drafts if _can_show(step, shown, draft)), None)
        if draft:
            draft.trace.append(step)


def has_passed(trace: Iterable[TraceStep], step: TraceStep) -> bool:
    """Whether a packet has been in a step's chain before: then the step is another's that looks like it.

    The kernel may give one packet several numbers: it makes them of what translation, or a bridge, changes.
    """
    place = (step.netns, step.family, step.table, step.chain)
    return any((past.netns, past.family, past.table, past.chain) == place for past in trace)


def _can_show(step: TraceStep, shown: Datagram, draft: _Draft) -> bool:
    """Whether a step's packet can be the datagram; what an ICMP error quotes is cut off there."""
    return not has_passed(draft.trace, step) and any(
        hop.netns == step.netns and hop.datagram.header == shown.header and _likeness(hop.datagram) == _likeness(shown)
        for hop in draft.hops
    )
