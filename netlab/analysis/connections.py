"""The TCP connections of a recording: what conntrack's tuples say, in any namespace that tracks. Pure.

An entry that translates makes one header of the client's packets the next; the chain of them, over all namespaces, is
the way from the client's socket to the server's. What conntrack makes for a packet of the server's, or for one that
has been translated before, belongs to a connection that is known by then. A connection that nothing tracks is known by
its SYN. An entry that was there before tells of the past: its connection counts once a packet of it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

from netlab.model import Address, Topology
from netlab.record.events import ACK, SYN, ConntrackEvent, Direction, EntryChange, Event, Packet, Tuple
from netlab.record.flow import Ends, Flow, ends, inverse
from netlab.record.wire import IPPROTO_TCP


def homes(topology: Topology) -> dict[Address, str]:
    """The namespace of each address that the topology gives; of a link-local one that several have, the first."""
    found: dict[Address, str] = {}
    for end in topology.interfaces():
        for address in end.addresses:
            found.setdefault(address.ip, end.netns)
    for netns in topology.namespaces:
        for address in netns.loopback:
            found.setdefault(address.ip, netns.name)
    return found


def connections_in(topology: Topology, events: Iterable[Event]) -> tuple[Flow, ...]:
    """The TCP connections whose ends are both in the lab, each once, in the order in which they were first seen."""
    return tuple(_Finder(topology, events).flows())


def completed(known: Iterable[Flow], found: Iterable[Flow]) -> tuple[Flow, ...]:
    """The known connections, each as it was found if it was, and then the others that were found."""
    by_header = {flow.headers()[0]: flow for flow in found}
    first = []
    for flow in known:
        seen = by_header.pop(flow.headers()[0], flow)
        first.append(seen if seen.node is not None else replace(seen, node=flow.node))
    return tuple(dict.fromkeys((*first, *by_header.values())))


class _Finder:
    """The translations and trackers by header, and the SYNs that were seen."""

    def __init__(self, topology: Topology, events: Iterable[Event]) -> None:
        self._topology, self._homes = topology, homes(topology)
        self._events = tuple(events)
        self._made: set[Ends] = set()
        self._next: dict[Ends, tuple[str | None, Ends]] = {}
        self._looks_like: dict[Ends, tuple[str | None, Ends]] = {}
        self._trackers: dict[Ends, str] = {}
        self._backward: set[Ends] = set()
        self._begun: dict[Ends, None] = {}
        self._within: set[Ends] = set()
        self._senders: dict[Ends, str] = {}
        self._syns: dict[tuple[int | None, ...], tuple[Ends, str]] = {}
        self._receivers: dict[Ends, str] = {}
        self._collect()

    def _collect(self) -> None:
        for event in self._events:
            if isinstance(event, ConntrackEvent) and event.tuple_orig.proto == IPPROTO_TCP:
                if event.change is EntryChange.NEW:
                    self._made.add(ends(event.tuple_orig))
                self._entry(event.netns, ends(event.tuple_orig), ends(event.tuple_reply))
            elif isinstance(event, Packet) and event.segment.flags & (SYN | ACK) == SYN:
                self._syn(event)

    def _syn(self, packet: Packet) -> None:
        segment, header = packet.segment, ends(packet.segment)
        if header in self._backward:
            return
        self._begun.setdefault(header)
        self._backward.add(inverse(header))
        self._senders.setdefault(header, packet.netns)
        if packet.direction is Direction.IN:
            self._receivers[header] = packet.netns
        # The same SYN with another header: it was translated, though conntrack's events may not have been read.
        likeness = (segment.seq, segment.window, segment.ip_id, segment.ts_val)
        before, where = self._syns.get(likeness, (header, packet.netns))
        if before != header:
            self._looks_like.setdefault(before, (where if where == packet.netns else None, header))
        self._syns[likeness] = (header, packet.netns)

    def _entry(self, netns: str, original: Ends, reply: Ends) -> None:
        if original in self._backward:  # made for a packet of the server's, in mid-stream
            return
        translated = inverse(reply)
        self._begun.setdefault(original)
        self._trackers.setdefault(original, netns)
        self._backward |= {reply, inverse(original)}
        self._within.add((*original[:2], *translated[2:]))
        if translated != original:
            self._next.setdefault(original, (netns, translated))

    def flows(self) -> Iterator[Flow]:
        for before, (netns, header) in self._looks_like.items():
            if before not in self._trackers and header not in self._trackers:
                self._next[before] = (netns, header)
        later = {translated for _, translated in self._next.values()}
        no_beginning = later | (self._within - self._trackers.keys())
        for header in self._begun:
            if header in no_beginning or (flow := self._flow(header)) is None:
                continue
            if header in self._made or header in self._senders or self._moved(flow):
                yield flow

    def _moved(self, flow: Flow) -> bool:
        """Whether a packet of it was seen."""
        return any((int(src), sport, int(dst), dport) in self._seen for src, sport, dst, dport in flow.legs())

    @cached_property
    def _seen(self) -> set[tuple[int, int, int, int]]:
        """The headers of all packets; an address as a number is hashed many times faster."""
        segments = (event.segment for event in self._events if isinstance(event, Packet))
        return {(int(each.src), each.sport, int(each.dst), each.dport) for each in segments}

    def _flow(self, header: Ends) -> Flow | None:
        way: list[Ends] = [header]
        nodes: list[str | None] = []
        while way[-1] in self._next:
            netns, translated = self._next[way[-1]]
            if translated in way:
                break
            way.append(translated)
            nodes.append(netns)
        last = way[-1]
        client = self._homes.get(header[0]) or self._senders.get(header)
        server = self._homes.get(last[2]) or self._receivers.get(last)
        if client is None or server is None:
            return None
        known = {netns.name: netns.node for netns in self._topology.namespaces}
        flow = Flow(
            client=client,
            node=nodes[0] if nodes else self._trackers.get(header),
            server=server,
            server_node=known.get(server),
            client_address=header[0],
            client_port=header[1],
            vip=header[2],
            port=header[3],
            endpoint=last[2],
            target_port=last[3],
        )
        if flow.headers() == tuple(way):
            return flow
        return replace(flow, way=tuple(Tuple(*each, IPPROTO_TCP) for each in way))
