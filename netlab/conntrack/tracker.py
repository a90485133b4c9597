"""The entries of one namespace's conntrack that some packets make and find, by the headers they match. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from netlab.conntrack import packet as one
from netlab.conntrack.kernels import Rules
from netlab.conntrack.values import ANEW, Checked, CtDirection, Entry
from netlab.record.events import SYN, ConntrackEvent, EntryChange, Packet, Segment, Tuple

IPPROTO_TCP = 6

OLDER = "the connection is older than what was seen of it"
FRAGMENT = "a fragment: conntrack sees the whole packet, put together"
"""Why packets are not modelled."""


def follow(
    packets: Iterable[Packet],
    rules: Rules,
    *,
    translations: Mapping[Tuple, Tuple] = MappingProxyType({}),
    entries: Iterable[ConntrackEvent] = (),
    whole: bool = True,
) -> list[Checked]:
    """What conntrack in one namespace makes of packets, given in the order in which they came in; as of a Tracker."""
    tracker = Tracker(rules, translations=translations, entries=entries, whole=whole)
    return [tracker.packet(packet) for packet in packets]


@dataclass(slots=True)
class _Connection:
    """A connection by the tuple of its first packet, and its entry now."""

    original: Tuple
    entry: Entry


class Tracker:
    """What conntrack in one namespace knows of TCP connections.

    Each packet must be given once, in the order in which they came in, with the addresses it had before translation.
    translations has the reply's tuple of connections that NAT translates, by the original one; entries, what the
    namespace's ctnetlink told, says it too, and tells which entries ran out. Where the packets are not the `whole`
    connection, they are not modelled before a SYN, or the end of the old entry.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        translations: Mapping[Tuple, Tuple] = MappingProxyType({}),
        entries: Iterable[ConntrackEvent] = (),
        whole: bool = True,
    ) -> None:
        self._rules = rules
        self._whole = whole
        events = [event for event in entries if event.tuple_orig.proto == IPPROTO_TCP]
        self._replies: dict[Tuple, list[tuple[int, Tuple]]] = {}
        # The end of an entry says nothing of the one that is made next, unless nothing else was told.
        for event in sorted(events, key=lambda event: (event.change is EntryChange.DESTROY, event.time_ns)):
            if event.change is EntryChange.DESTROY and event.tuple_orig in self._replies:
                continue
            self._replies.setdefault(event.tuple_orig, []).append((event.time_ns, event.tuple_reply))
        for original, reply in translations.items():
            self._replies.setdefault(original, [(0, reply)])
        self._found: dict[Tuple, tuple[_Connection, CtDirection]] = {}
        self._connections: dict[Tuple, _Connection] = {}
        gone = (event for event in events if event.change is EntryChange.DESTROY)
        self._gone = sorted(((event.time_ns, event.tuple_orig) for event in gone), key=_time, reverse=True)
        told = (event for event in events if event.window_scales and event.change is EntryChange.UPDATE)
        # In the handshake the scales become known one by one: there the packets say it sooner.
        told = (event for event in told if event.tcp_state == "ESTABLISHED")
        scales = ((event.time_ns, event.tuple_orig, event.window_scales or (0, 0)) for event in told)
        self._scales = sorted(scales, key=_time, reverse=True)

    def entry(self, header: Tuple) -> Entry | None:
        """The entry that a packet with this header finds."""
        found = self._found.get(header)
        return found[0].entry if found else None

    def packet(self, packet: Packet) -> Checked:
        """What conntrack makes of the next packet."""
        while self._gone and self._gone[-1][0] <= packet.time_ns:
            self._forget(self._gone.pop()[1])
        while self._scales and self._scales[-1][0] <= packet.time_ns:
            self._rescale(*self._scales.pop()[1:])
        malformed = one.malformed(packet)
        if malformed is not None:
            return malformed
        header = tuple_of(packet.segment)
        found = self._found.get(header)
        if found is None:
            return self._new(packet, header)
        connection, direction = found
        checked = self._following(packet, direction, connection.entry)
        if checked is None or checked.state_after is None:
            self._forgotten(connection.original)
        if checked is None:
            return self._new(packet, header, ANEW)
        if checked.state_after is not None:
            connection.entry = checked.state_after
        return checked

    def _following(self, packet: Packet, direction: CtDirection, entry: Entry) -> Checked | None:
        why = entry.unmodelled or (FRAGMENT if packet.segment.is_fragment else "")
        if why:
            return one.unmodelled(packet, direction, why, entry)
        return one.following(packet, direction, entry, self._rules)

    def _new(self, packet: Packet, header: Tuple, note: str = "") -> Checked:
        self._whole = self._whole or bool(packet.segment.flags & SYN)
        if not self._whole:
            return replace(one.unmodelled(packet, CtDirection.ORIGINAL, OLDER, None), state_after=None)
        if packet.segment.is_fragment:
            checked = one.unmodelled(packet, CtDirection.ORIGINAL, FRAGMENT, None)
        else:
            checked = one.first(packet, self._rules)
        if checked.state_after is not None:
            reply = self._reply(header, packet.time_ns)
            connection = self._connections[header] = _Connection(header, checked.state_after)
            self._found[header] = (connection, CtDirection.ORIGINAL)
            self._found[reply] = (connection, CtDirection.REPLY)
        return replace(checked, note=note) if note else checked

    def _reply(self, original: Tuple, time_ns: int) -> Tuple:
        """The reply's tuple of an entry that is made then: what was told of it next, for another may follow it."""
        told = self._replies.get(original)
        if not told:
            return Tuple(original.dst, original.dport, original.src, original.sport, original.proto)
        return next((reply for at_ns, reply in told if at_ns >= time_ns), told[-1][1])

    def _rescale(self, original: Tuple, scales: tuple[int, int]) -> None:
        """What ctnetlink tells of the window scales: someone may have changed them through it."""
        connection = self._connections.get(original)
        if connection is not None:
            entry = connection.entry
            own, other = replace(entry.original, td_scale=scales[0]), replace(entry.reply, td_scale=scales[1])
            connection.entry = replace(entry, original=own, reply=other)

    def _forgotten(self, original: Tuple) -> None:
        """A packet ended the entry; what ctnetlink tells of that, which comes later, is not about the next one."""
        self._forget(original)
        told = [event for event in self._gone if event[1] == original]
        if told:
            self._gone.remove(told[-1])

    def _forget(self, original: Tuple) -> None:
        self._whole = True
        ended = self._connections.pop(original, None)
        for header in [header for header, (owner, _) in self._found.items() if owner is ended]:
            del self._found[header]


def tuple_of(segment: Segment) -> Tuple:
    """The tuple that a segment's headers are."""
    return Tuple(segment.src, segment.sport, segment.dst, segment.dport, IPPROTO_TCP)


def _time(event: tuple[int, *tuple[object, ...]]) -> int:
    return event[0]
