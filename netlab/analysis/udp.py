"""Conversations of UDP: who asked whom, what NAT made of it, and how it ended; decided once, as values. Pure.

UDP has no beginning and no end of its own. A conversation is what a client's socket sends to one address and port, and
what comes back. Which end is the client's follows from conntrack's entries, where nothing tracks from who spoke first.
What can't be known has a value that says so. `explain_udp.py` words these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, groupby

from netlab.analysis.answers import rejection
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.timeline import Timeline
from netlab.analysis.translation import EntryLife, entry_lives
from netlab.kubeproxy.leads import leads
from netlab.kubeproxy.portals import Portal, portals
from netlab.model import Address, Protocol
from netlab.record.events import ConntrackEvent, DatagramPacket, Direction, TraceStep
from netlab.record.flow import Ends, ends, inverse
from netlab.record.observers import ObserverKind
from netlab.record.wire import IPPROTO_UDP

PORT_UNREACHABLE = ((3, 3), (1, 4))
"""ICMP's type and code, and ICMPv6's, with which a kernel says that no socket takes a datagram."""
_PROHIBITED = ((3, 9), (3, 10), (3, 13), (1, 1))


class UdpEnding(StrEnum):
    """How a conversation ended, as far as it was seen."""

    STALE_ENTRY = "stale-entry"
    """Conntrack translated a datagram by an entry that is not what the rules say, or leads to nobody."""
    REFUSED = "refused"
    """A datagram was answered with an ICMP error: no socket takes it, or a rule rejects it."""
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    UNEXPLAINED = "unexplained"
    """No answer was seen, and one may have come unseen."""


FAILURES = (UdpEnding.STALE_ENTRY, UdpEnding.REFUSED, UdpEnding.UNANSWERED, UdpEnding.UNEXPLAINED)
"""The endings that ask for an explanation, what is most certain first."""


class Refuser(StrEnum):
    """What made an ICMP error."""

    RULE = "rule"
    NO_SOCKET = "no-socket"
    """A kernel in which no socket takes the datagram."""
    UNKNOWN = "unknown"


class Why(StrEnum):
    """What is wrong with a conntrack entry."""

    UNTRANSLATED = "untranslated"
    """It translates nothing, and there are endpoints to translate to: it was made before the rules."""
    NO_ENDPOINT = "no-endpoint"
    """It leads to where no rule leads: to what is no endpoint of the Service."""
    ADDRESS_GONE = "address-gone"
    """It leads to an address that no namespace had any more at the end."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An ICMP error and the datagram that it answers. rule is the one that rejected it, where one did."""

    asked: DatagramPath
    error: DatagramPath
    refuser: Refuser
    rule: TraceStep | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a node's rules lead what is sent to an address and port, at first and at the end of the observation.

    read: they are the node's own, as they were read; otherwise those that the topology's Services get, or, empty, none
    that are known.
    """

    first: frozenset[tuple[Address, int]] = frozenset()
    now: frozenset[tuple[Address, int]] = frozenset()
    read: bool = False

    @property
    def known(self) -> bool:
        """Whether anything is known of them."""
        return self.read or bool(self.now)

    @property
    def changed(self) -> bool:
        """Whether they became others meanwhile."""
        return self.first != self.now


@dataclass(frozen=True, slots=True)
class StaleEntry:
    """An entry that a datagram was translated by, or left alone by, and what is wrong with it.

    portal is the Service's port that the datagrams are sent to, if it is one. before: the entry was there when the
    observation began.
    """

    asked: DatagramPath
    entry: EntryLife
    why: Why
    portal: Portal | None
    before: bool
    rules: Rules

    @property
    def leads_to(self) -> tuple[Address, int]:
        """Where the entry sends the client's datagrams."""
        return self.entry.reply[:2]

    @property
    def rules_differ(self) -> bool:
        """Whether the rules, as far as they are known, lead to others and not to where the entry does."""
        return bool(self.rules.now) and self.leads_to not in self.rules.now


@dataclass(frozen=True, slots=True)
class Translation:
    """What NAT in a namespace made of a datagram's header. rule is the one that said so, if it was seen."""

    netns: str
    time_ns: int
    before: Ends
    after: Ends
    rule: TraceStep | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that was seen of one.

    header is that of the client's datagrams as its socket sends them. client and server are the namespaces that hold
    the addresses at both ends, server that of the last address the datagrams had; None where none does. requests are
    the client's datagrams, answers the server's, errors the ICMP errors about requests, in order of time; unheard those
    about answers. stale and refusals tell of the requests that met them. gone: no namespace had the last address at the
    end of the observation.
    """

    header: Ends
    client: str | None
    server: str | None
    last_header: Ends
    node: str | None
    ending: UdpEnding
    requests: tuple[DatagramPath, ...]
    answers: tuple[DatagramPath, ...] = ()
    errors: tuple[DatagramPath, ...] = ()
    unheard: tuple[DatagramPath, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    stale: tuple[StaleEntry, ...] = ()
    gone: bool = False

    @property
    def first_ns(self) -> int:
        """When the first of its packets was seen."""
        return min(path.time_ns for path in (*self.requests, *self.answers))

    @property
    def packets(self) -> int:
        """How many packets were seen of it, ICMP errors among them."""
        return sum(map(len, (self.requests, self.answers, self.errors, self.unheard)))


def conversations(timeline: Timeline) -> tuple[Conversation, ...]:
    """The conversations of UDP in the order in which they began."""
    if not any(path.datagram.header.proto == IPPROTO_UDP for path in timeline.datagram_paths):
        return ()
    return tuple(sorted(_Finder(timeline).found(), key=lambda each: each.first_ns))


def translations(path: DatagramPath) -> Iterator[Translation]:
    """What NAT made of a datagram, namespace by namespace."""
    for netns, group in groupby(path.hops, key=lambda hop: hop.netns):
        hops = list(group)
        before = ends(hops[0].datagram.header)
        for hop in hops[1:]:
            after = ends(hop.datagram.header)
            if after != before:
                rule = next((step for step in path.trace if step.netns == netns and _translates(step)), None)
                yield Translation(netns, hop.time_ns, before, after, rule)
                before = after


def _translates(step: TraceStep) -> bool:
    return step.verdict == "accept" and bool({"dnat", "snat", "masquerade"} & set(step.rule.split()))


@dataclass(slots=True)
class _Draft:
    """A conversation in the making."""

    header: Ends
    requests: list[DatagramPath] = field(default_factory=list)
    answers: list[DatagramPath] = field(default_factory=list)
    errors: list[DatagramPath] = field(default_factory=list)
    unheard: list[DatagramPath] = field(default_factory=list)


class _Finder:
    """Sorts the datagrams by conversation, and reads each."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._topology = timeline, timeline.topology
        self._lives: Mapping[str, Sequence[EntryLife]] = entry_lives(timeline, IPPROTO_UDP)
        self._of: dict[Ends, list[EntryLife]] = defaultdict(list)
        self._becoming: dict[Ends, list[EntryLife]] = defaultdict(list)
        for life in chain.from_iterable(self._lives.values()):
            self._of[life.original].append(life)
            self._becoming[inverse(life.reply)].append(life)
        self._ruled: dict[tuple[str, tuple[Address, int]], tuple[Portal | None, Rules]] = {}
        self._before: dict[Ends, Ends] = {}
        self._backward: set[Ends] = set()
        self._drafts: dict[Ends, _Draft] = {}
        self._known: dict[Ends, _Draft] = {}
        self._orient()

    def _orient(self) -> None:
        """Learn from the entries which headers are answers', and what each request's header was before NAT."""
        for event in self._timeline.events:
            if not isinstance(event, ConntrackEvent) or event.tuple_orig.proto != IPPROTO_UDP:
                continue
            original, reply = ends(event.tuple_orig), ends(event.tuple_reply)
            if original in self._backward:
                continue
            self._backward |= {reply, inverse(original)}
            if inverse(reply) != original:
                self._before.setdefault(inverse(reply), original)

    def _origin(self, header: Ends) -> Ends:
        """A request's header as the client's socket sent it."""
        seen = {header}
        while (before := self._before.get(header)) is not None and before not in seen:
            header = before
            seen.add(header)
        return header

    def found(self) -> Iterator[Conversation]:
        """The conversations that have a datagram of UDP."""
        paths = self._timeline.datagram_paths
        for path in paths:
            if path.datagram.header.proto == IPPROTO_UDP:
                self._sort(path)
        for path in paths:
            for header in dict.fromkeys(hop.datagram.about for hop in path.hops):
                if header is None or header.proto != IPPROTO_UDP:
                    continue
                about = ends(header)
                if about in self._known:
                    self._known[about].errors.append(path)
                    break
                if inverse(about) in self._known:
                    self._known[inverse(about)].unheard.append(path)
                    break
        for draft in self._drafts.values():
            yield self._read(draft)

    def _sort(self, path: DatagramPath) -> None:
        headers = list(dict.fromkeys(ends(hop.datagram.header) for hop in path.hops))
        first = headers[0]
        answer = first in self._backward or any(inverse(header) in self._known for header in headers)
        own = self._origin(inverse(first) if answer else first)
        draft = self._drafts.setdefault(own, _Draft(own))
        (draft.answers if answer else draft.requests).append(path)
        for header in (own, *(map(inverse, headers) if answer else headers)):
            self._known.setdefault(header, draft)

    # --- one conversation

    def _read(self, draft: _Draft) -> Conversation:
        header = draft.header
        last_header = ends(draft.requests[-1].last.datagram.header) if draft.requests else header
        own = self._of.get(header, [])
        if last_header == header:
            last_header = next((inverse(life.reply) for life in own if life.translates), header)
        homes = self._timeline.homes
        refusals = tuple(self._refusals(draft))
        stale = tuple(found for path in draft.requests if (found := self._stale(path, draft)) is not None)
        return Conversation(
            header,
            homes.get(header[0]) or (draft.requests[0].hops[0].netns if draft.requests else None),
            homes.get(last_header[2]),
            last_header,
            own[0].netns if own else None,
            self._ending(draft, refusals, stale),
            tuple(draft.requests),
            tuple(draft.answers),
            tuple(draft.errors),
            tuple(draft.unheard),
            refusals,
            stale,
            self._is_gone(last_header[2]),
        )

    def _ending(self, draft: _Draft, refusals: Sequence[Refusal], stale: Sequence[StaleEntry]) -> UdpEnding:
        if stale:
            return UdpEnding.STALE_ENTRY
        if refusals:
            return UdpEnding.REFUSED
        client = self._timeline.homes.get(draft.header[0])
        came = [path for path in draft.answers if path.delivered and path.last.netns == client]
        asked = [path.time_ns for path in draft.requests]
        if came and (len(came) >= len(asked) or came[-1].last.time_ns >= asked[-1]):
            return UdpEnding.ANSWERED
        return UdpEnding.UNEXPLAINED if self._unseen_at(client) else UdpEnding.UNANSWERED

    def _unseen_at(self, client: str | None) -> bool:
        """Whether an answer may have come to the client unseen."""
        recording = self._timeline.recording
        tapped = any(tap.netns == client for tap in recording.taps)
        lost = any(
            count and observer.kind is ObserverKind.PACKETS and observer.netns == client
            for observer, count in recording.lost
        )
        return recording.in_part or lost or not tapped

    def _refusals(self, draft: _Draft) -> Iterator[Refusal]:
        for error in draft.errors:
            datagram, sender = error.datagram, error.hops[0].netns
            asked = _asked(draft.requests, error)
            if asked is None:
                continue
            kind = (datagram.icmp_type, datagram.icmp_code)
            rule = rejection(asked.trace, sender)
            if rule is not None:
                yield Refusal(asked, error, Refuser.RULE, rule)
            elif kind in PORT_UNREACHABLE:
                own = asked.delivered and asked.last.netns == sender and not self._may_reject(asked, sender)
                yield Refusal(asked, error, Refuser.NO_SOCKET if own else Refuser.UNKNOWN)
            elif kind in _PROHIBITED:
                yield Refusal(asked, error, Refuser.UNKNOWN)

    def _may_reject(self, asked: DatagramPath, netns: str) -> bool:
        """Whether a rule there may have rejected it unseen: there are rules, and its way through them wasn't seen."""
        if any(step.netns == netns for step in asked.trace) or self._topology is None:
            return False
        named = [each for each in self._topology.namespaces if each.name == netns]
        return netns in self._topology.kube_proxy.nodes or any(each.tables for each in named)

    # --- stale entries

    def _stale(self, path: DatagramPath, draft: _Draft) -> StaleEntry | None:
        """The first entry on a request's way that isn't what the rules say, if one is known to be so."""
        for _, group in groupby(path.hops, key=lambda hop: hop.netns):
            entry = self._entry(next(group))
            if entry is None:
                continue
            before = entry.from_ns == self._timeline.recording.started_ns
            leads_to, asked = entry.reply[:2], entry.original[2:]
            if (entry.netns, asked) not in self._ruled:
                portal = self._portal(entry.netns, entry.original)
                self._ruled[entry.netns, asked] = portal, self._rules(entry, portal)
            portal, rules = self._ruled[entry.netns, asked]
            last = path is draft.requests[-1]
            why = None
            if leads_to == asked:
                if self._came_later(entry, rules, before=before) and (last or not rules.changed):
                    why = Why.UNTRANSLATED
            elif self._is_gone(leads_to[0]) and not _heard(draft, path.time_ns, self._timeline.recording.ended_ns):
                # A younger entry was made by rules that led there; the address left later only if it was heard of.
                why = Why.ADDRESS_GONE if before or _heard(draft, entry.from_ns, path.time_ns) else None
            elif rules.known and leads_to not in rules.now and (before or leads_to in rules.first):
                # A younger entry was made by the rules as they then were. When they changed is not known.
                why = Why.NO_ENDPOINT if last or not rules.changed else None
            if why is not None:
                return StaleEntry(path, entry, why, portal, before, rules)
        return None

    def _came_later(self, entry: EntryLife, rules: Rules, *, before: bool) -> bool:
        """Whether there are rules that would translate what an entry leaves alone, and they are younger than it."""
        return bool(rules.now) and (before or not rules.first or self._is_translated_later(entry))

    def _rules(self, entry: EntryLife, portal: Portal | None) -> Rules:
        """Where the rules lead what the entry is for: by the rules as they were read, else by the topology."""
        recording, to = self._timeline.recording, entry.original[2:]
        noted = [recording.network_of(entry.netns, when) for when in (recording.started_ns, recording.ended_ns)]
        read = [leads(state.ruleset, *to) for state in noted if state is not None and state.ruleset is not None]
        first, now = (read[0], read[-1]) if read else (None, None)
        if first is not None and now is not None:
            return Rules(first, now, read=True)
        if portal is None or not portal.endpoints:
            return Rules()
        endpoints = frozenset((endpoint, portal.port.target_port) for endpoint in portal.endpoints)
        return Rules(endpoints, endpoints)

    def _entry(self, hop: DatagramPacket) -> EntryLife | None:
        """The entry that a datagram met where it came in, or was made: of the latter the header may be translated."""
        header = ends(hop.datagram.header)
        lives = [*self._of.get(header, ()), *(self._becoming.get(header, ()) if hop.direction is Direction.OUT else ())]
        return next((life for life in lives if life.netns == hop.netns and life.there(hop.time_ns)), None)

    def _portal(self, netns: str, header: Ends) -> Portal | None:
        """The Service's port that a header's destination is, on a node that translates for Services."""
        topology, (_, _, address, port) = self._timeline.topology, header
        if topology is None or netns not in topology.kube_proxy.nodes:
            return None
        for portal in portals(topology.services, netns, address.version):
            if portal.port.protocol is not Protocol.UDP:
                continue
            own = (portal.cluster_ip, *portal.external_ips, *portal.load_balancer_ips)
            if address in own and port == portal.port.port:
                return portal
            if port == portal.port.node_port and self._timeline.homes.get(address) == netns:
                return portal
        return None

    def _is_translated_later(self, entry: EntryLife) -> bool:
        """Whether a younger entry there translates what is sent to the same address and port."""
        same = (life for life in self._lives[entry.netns] if life.original[2:] == entry.original[2:])
        return any(life.translates and life.from_ns > entry.from_ns for life in same)

    def _is_gone(self, address: Address) -> bool:
        """Whether no namespace had an address at the end; false where one of them wasn't looked at."""
        topology, recording = self._topology, self._timeline.recording
        if topology is None:
            return False
        states = [recording.network_of(netns.name, recording.ended_ns) for netns in topology.namespaces]
        return all(state is not None and not state.is_local(address) for state in states)


def _heard(draft: _Draft, since_ns: int, until_ns: int) -> bool:
    """Whether the far end was heard of within a time: an answer of it, or the refusal of a datagram that reached it."""
    heard = list(draft.answers)
    for error in draft.errors:
        about = error.datagram.about
        if about is not None and about.dst == error.datagram.header.src:
            heard.append(error)
    return any(since_ns <= path.time_ns <= until_ns for path in heard)


def _asked(requests: Sequence[DatagramPath], error: DatagramPath) -> DatagramPath | None:
    """The request that an ICMP error answers: the last with the header that it quotes, by the time it was made."""
    about = error.datagram.about
    earlier = [path for path in requests if path.time_ns <= error.time_ns]
    quoted = [path for path in earlier if any(hop.datagram.header == about for hop in path.hops)]
    found = quoted or earlier
    return found[-1] if found else None
