"""What the kernel itself told of packets that were seen: which it dropped, which RSTs its TCP sent or took. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netlab.analysis.merge import Draft
from netlab.record import drops, resets
from netlab.record.events import RST, CounterChange, DatagramPacket, Event, Packet, PacketDrop, ResetKind, TcpReset
from netlab.record.flow import Ends, ends
from netlab.record.observers import ObserverKind
from netlab.record.recording import Recording


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a namespace's counters: how far each has gone since the one before."""

    time_ns: int
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class Told:
    """The kernel's own word on packets, by their numbers; empty where this user may not read it.

    sent and accepted are of RSTs, drops of all packets. strays are accepted RSTs of which nobody knows which packet it
    was. whole: every RST that TCP sends or accepts was told. readings are each namespace's readings of its counters,
    which every user may read.
    """

    sent: Mapping[int, TcpReset] = field(default_factory=dict)
    accepted: Mapping[int, TcpReset] = field(default_factory=dict)
    drops: Mapping[int, PacketDrop] = field(default_factory=dict)
    strays: tuple[TcpReset, ...] = ()
    whole: bool = False
    readings: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)

    def read_after(self, netns: str, time_ns: int) -> Mapping[str, int] | None:
        """How far a namespace's counters had gone at the next reading, those that went at all; None without one."""
        return next((each.counts for each in self.readings.get(netns, ()) if each.time_ns >= time_ns), None)

    def refused(self, netns: str, comes: Ends) -> bool:
        """Whether no socket in a namespace accepted any RST with that header but those in `accepted`."""
        return self.whole and not any(
            reset.netns == netns and reset.socket is not None and ends(reset.socket) == (*comes[2:], *comes[:2])
            for reset in self.strays
        )


def told(recording: Recording, events: Sequence[Event], drafts: Iterable[Draft]) -> Told:
    """What the events tell of the packets in the drafts, which have their numbers."""
    own_drops = [event for event in events if isinstance(event, PacketDrop)]
    own_resets = [event for event in events if isinstance(event, TcpReset)]
    readings = _readings(events)
    if not own_drops and not own_resets:
        return Told(readings=readings)
    drafts = list(drafts)
    crossings = [event for event in events if isinstance(event, Packet | DatagramPacket)] if own_drops else []
    numbers = _Numbers(drafts)
    dropped = {}
    for drop, crossing in drops.attach(own_drops, crossings):
        number = numbers.of(crossing) if isinstance(crossing, Packet) else None
        if number is not None:
            dropped[number] = drop
    sent: dict[int, TcpReset] = {}
    accepted: dict[int, TcpReset] = {}
    strays: list[TcpReset] = []
    rsts = [event for event in events if isinstance(event, Packet) and event.segment.flags & RST]
    for reset, packet in resets.attach(own_resets, rsts):
        number = numbers.of(packet) if packet is not None else None
        if number is not None:
            (sent if reset.kind is ResetKind.SENT else accepted)[number] = reset
        elif reset.kind is ResetKind.ACCEPTED:
            strays.append(reset)
    lost = any(count for observer, count in recording.lost if observer.kind is ObserverKind.RESETS)
    return Told(sent, accepted, dropped, tuple(strays), bool(own_resets) and not lost, readings)


_READING_NS = 50_000_000
"""The counters of one reading are stamped within this time."""


def _readings(events: Iterable[Event]) -> dict[str, tuple[Reading, ...]]:
    """The readings of each namespace's counters, in order of time."""
    found: dict[str, list[Reading]] = defaultdict(list)
    for event in events:
        if not isinstance(event, CounterChange):
            continue
        own = found[event.netns]
        if not own or event.time_ns - own[-1].time_ns >= _READING_NS:
            own.append(Reading(event.time_ns, Counter()))
        own[-1].counts[event.name] += event.by
    return {netns: tuple(own) for netns, own in found.items()}


class _Numbers:
    """The numbers of packets, by where and when they were seen."""

    def __init__(self, drafts: Iterable[Draft]) -> None:
        self._numbers: dict[tuple[str, str, str, int, int, int], int] = {}
        for draft in drafts:
            for parts in draft.places.values():
                for part in parts:
                    self._numbers[_moment(part)] = draft.number

    def of(self, packet: Packet) -> int | None:
        return self._numbers.get(_moment(packet))


def _moment(packet: Packet) -> tuple[str, str, str, int, int, int]:
    segment = packet.segment
    return packet.netns, packet.ifname, packet.direction, packet.time_ns, segment.seq, segment.flags
