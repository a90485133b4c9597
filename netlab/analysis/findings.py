"""Why, decided once: what became of each packet and of each connection, and who did it, as values. Pure.

The judge counts findings, `explain` words them, diagrams draw them. None of them looks at packets again to decide
anything. What can't be known has a value that says so.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from netlab.analysis import acceptance as accepting
from netlab.analysis import answers as answering
from netlab.analysis.acceptance import Acceptance
from netlab.analysis.answers import Answer
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.incarnations import Incarnation, incarnations
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.timeline import Timeline, build
from netlab.analysis.translation import LEFT_ALONE, EntryLife, Translations, Visit, entry_lives, invalid_at
from netlab.record.events import (
    ACK,
    FIN,
    RST,
    SYN,
    Direction,
    PacketDrop,
    SocketEvent,
    SocketEventKind,
    TraceStep,
    seq_diff,
)
from netlab.record.flow import Flow, ends
from netlab.record.recording import Recording
from netlab.record.wire import IPPROTO_TCP

LATE_NS = 100_000_000
"""How late a socket's event may be read after the packet that it follows from."""


class Ending(StrEnum):
    """How a connection ended, as far as it was seen: what its two programs come to know."""

    RESET = "reset"
    """A RST ended it that answers a packet which NAT had not translated."""
    RESET_BY_PEER = "reset-by-peer"
    """A RST ended it that came the connection's own way, through the VIP where there is one."""
    RESET_IN_HANDSHAKE = "reset-in-handshake"
    """A RST ended it before it was open at both ends."""
    REFUSED = "refused"
    """The client's SYN was answered with a RST or an ICMP error."""
    SYN_UNANSWERED = "syn-unanswered"
    HALF_CLOSED = "half-closed"
    """One end knows that the other has closed its side; what that end sent since, its FIN or data, did not arrive."""
    COMPLETED = "completed"
    """The server has closed its side, and the client too or it was still open at last; all that was sent arrived."""
    UNFINISHED = "unfinished"


RESETS = frozenset((Ending.RESET, Ending.RESET_BY_PEER, Ending.RESET_IN_HANDSHAKE))
"""The endings in which a RST took a connection from its programs."""


@dataclass(frozen=True, slots=True)
class PacketFinding:
    """What became of one packet.

    visits are the namespaces that it came through, with what NAT made of it in each. drop is the rule that took it,
    thrown_away the kernel's own word on that. answer says of a RST who made it, and acceptance what it could do to the
    socket that it came to.
    """

    path: PacketPath
    visits: tuple[Visit, ...]
    drop: TraceStep | None = None
    answer: Answer | None = None
    acceptance: Acceptance | None = None
    thrown_away: PacketDrop | None = None

    @property
    def left_alone(self) -> Visit | None:
        """The first namespace whose NAT was to translate the packet, and did not."""
        return next((visit for visit in self.visits if visit.nat in LEFT_ALONE), None)

    @property
    def untranslated(self) -> bool:
        """Whether it arrived somewhere without the translation that it was to have."""
        return self.left_alone is not None and self.path.fate is Fate.DELIVERED

    def invalid_in(self) -> list[str]:
        """The namespaces whose conntrack found it INVALID."""
        return [visit.netns for visit in self.visits if invalid_at(self.path, visit.netns)]


@dataclass(frozen=True, slots=True)
class Death:
    """A RST that ended an end of the connection, and what the socket there told, None where nothing was read of it.

    told: the kernel itself said that this socket accepted it.
    """

    rst: PacketFinding
    netns: str
    error: SocketEvent | None = None
    told: bool = False

    @property
    def time_ns(self) -> int:
        """When the RST came to that end."""
        return self.rst.path.last.time_ns


@dataclass(frozen=True, slots=True)
class ConnectionFinding:
    """What became of one incarnation of a flow.

    deaths are the RSTs that ended an end of it, in the order in which they came; harmless are those that came to an end
    and did nothing, doubtful those of which that can't be known. errors are the errnos that its sockets had.
    opened_ns is when the SYN,ACK came to the client, closed_ns when each end's FIN came to the other, by whether it is
    the client's. lost: an end closed before all that it had been sent had come.
    """

    flow: Flow
    incarnation: Incarnation
    ending: Ending
    packets: tuple[PacketFinding, ...]
    deaths: tuple[Death, ...] = ()
    harmless: tuple[PacketFinding, ...] = ()
    doubtful: tuple[PacketFinding, ...] = ()
    errors: tuple[SocketEvent, ...] = ()
    refusal: PacketFinding | DatagramPath | None = None
    opened_ns: int | None = None
    client_closed_ns: int | None = None
    server_closed_ns: int | None = None

    @property
    def killer(self) -> Death | None:
        """The first RST that ended an end of it."""
        return self.deaths[0] if self.deaths else None

    @property
    def completed_ns(self) -> int | None:
        """When the last FIN came, of a connection that completed."""
        if self.ending is not Ending.COMPLETED or self.server_closed_ns is None:
            return None
        return max(self.client_closed_ns or 0, self.server_closed_ns)

    def of(self, number: int) -> PacketFinding | None:
        """The finding of that packet."""
        return next((found for found in self.packets if found.path.number == number), None)


def analyse(recording: Recording) -> Findings:
    """The findings of a recording, with the one timeline that they are made from."""
    return Findings(build(recording))


class Findings:
    """The findings of a timeline, made when they are first asked for; each flow's incarnations in order."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._of: dict[Flow, tuple[ConnectionFinding, ...]] = {}

    @cached_property
    def entries(self) -> Mapping[str, tuple[EntryLife, ...]]:
        """The entries of each namespace's conntrack."""
        return entry_lives(self.timeline)

    def of(self, flow: Flow) -> tuple[ConnectionFinding, ...]:
        """What became of each of a flow's connections, one at least."""
        flow = self.timeline.known(flow)
        if flow not in self._of:
            paths = self.timeline.of(flow)
            found = incarnations(flow, paths)
            translations = Translations(self.timeline, flow, self.entries)
            self._of[flow] = tuple(_Connection(self.timeline, each, translations).finding() for each in found)
        return self._of[flow]


class _Connection:
    """Reads the packets of one incarnation."""

    def __init__(self, timeline: Timeline, incarnation: Incarnation, translations: Translations) -> None:
        self._timeline, self._incarnation, self._translations = timeline, incarnation, translations
        self._flow, self._paths = incarnation.flow, incarnation.paths
        self._client, self._server = accepting.receivers(self._flow, translations.translators)

    def finding(self) -> ConnectionFinding:
        packets = tuple(self._packet(path) for path in self._paths)
        errors = tuple(socket_events(self._timeline, self._flow, SocketEventKind.ERROR))
        errors = tuple(event for event in errors if not event.connection and self._incarnation.has(event.time_ns))
        refusals = self._incarnation.refusals()
        opened_ns = self._opened()
        closed = {True: self._closed(to_server=True), False: self._closed(to_server=False)}
        deaths, harmless, doubtful = [], [], []
        dead: set[bool] = set()
        resets = [each for each in packets if each.path.is_reset and each.path.fate is Fate.DELIVERED]
        for found in sorted(resets, key=lambda each: each.path.last.time_ns):
            path = found.path
            if path in refusals:
                continue
            error = _error_after(errors, path)
            # An end that has closed its side, and was heard to the last byte, has nothing to lose any more.
            over_ns = closed[not path.to_server]
            over = over_ns is not None and over_ns < path.last.time_ns and error is None
            if path.to_server in dead:
                harmless.append(found)
            elif found.acceptance is Acceptance.ENDS and not over:
                dead.add(path.to_server)
                deaths.append(Death(found, path.last.netns, error, path.number in self._timeline.told.accepted))
            elif found.acceptance is Acceptance.UNKNOWN and not over:
                doubtful.append(found)
            else:
                harmless.append(found)
        deaths.sort(key=lambda death: death.time_ns)
        told, doubtful = _by_their_errors(doubtful, deaths, errors)
        deaths = sorted([*deaths, *told], key=lambda death: death.time_ns)
        refusal = self._refusal(deaths, opened_ns)
        ending = self._ending(deaths, errors, refusal, opened_ns, closed)
        return ConnectionFinding(
            self._flow,
            self._incarnation,
            ending,
            packets,
            tuple(deaths),
            tuple(harmless),
            tuple(doubtful),
            errors,
            refusal,
            opened_ns,
            closed[True],
            closed[False],
        )

    def _packet(self, path: PacketPath) -> PacketFinding:
        visits = self._translations.visits(path)
        drop = (
            next((step for step in path.trace if step.verdict == "drop"), None) if path.fate is Fate.DROPPED else None
        )
        thrown_away = self._timeline.told.drops.get(path.number)
        if not path.segment.flags & RST:
            return PacketFinding(path, visits, drop, thrown_away=thrown_away)
        timeline = self._timeline
        answer = answering.answer(path, self._flow, self._paths, timeline.forged, timeline.closed, timeline.told)
        return PacketFinding(path, visits, drop, answer, self._acceptance(path), thrown_away)

    def _acceptance(self, rst: PacketPath) -> Acceptance | None:
        """What a RST did at the socket that it came to; None where it came to none."""
        if rst.fate is not Fate.DELIVERED:
            return None
        receiver = self._server if rst.to_server else self._client
        if rst.last.netns != receiver.netns:
            return Acceptance.STRAY
        told = self._timeline.told
        if rst.number in told.accepted:
            return Acceptance.ENDS
        judged = accepting.judge(rst, receiver, self._paths, self._came)
        if judged is Acceptance.UNKNOWN and not receiver.nat_is_own and told.refused(receiver.netns, receiver.comes):
            return Acceptance.IGNORED
        return judged

    def _opened(self) -> int | None:
        """When a SYN,ACK that acknowledges the client's SYN came to the client's socket."""
        syn = next((path.segment for path in self._paths if _is_syn(path)), None)
        for path in self._paths:
            segment = path.segment
            if not path.to_server and segment.flags & (SYN | ACK) == SYN | ACK:
                came_ns = self._came(path)
                if came_ns is not None and (syn is None or segment.ack == syn.end):
                    return came_ns
        return None

    def _came(self, path: PacketPath) -> int | None:
        """When a packet came to the socket that it was for."""
        receiver = self._server if path.to_server else self._client
        if path.corrupt or path.fate is not Fate.DELIVERED or path.last.netns != receiver.netns:
            return None
        if path.last.ends != receiver.comes:
            return None
        left_alone = receiver.nat_is_own and self._translations.visits(path)[-1].nat in LEFT_ALONE
        return None if left_alone else path.last.time_ns

    def _closed(self, *, to_server: bool) -> int | None:
        """When an end's FIN had come to the other with all that it had sent before; None if it has not."""
        fin = next((path.segment for path in self._paths if path.to_server is to_server and _is_fin(path)), None)
        if fin is None:
            return None
        pieces: list[tuple[int, PacketPath]] = []
        for path in self._paths:
            came_ns = self._came(path) if path.to_server is to_server and not path.segment.flags & RST else None
            if came_ns is not None:
                pieces.append((came_ns, path))
        seen_ns = accepting.complete(pieces, fin.end)
        if seen_ns is not None:
            return seen_ns
        # What the other end acknowledges has come to it, seen or not: of a load's packets only some are observed.
        other = (path for path in self._paths if path.to_server is not to_server and not path.segment.flags & RST)
        acks = (path for path in other if path.segment.flags & ACK and seq_diff(path.segment.ack, fin.end) >= 0)
        return min((path.time_ns for path in acks), default=None)

    def _client_is_heard(self) -> bool:
        """Whether the client has closed nothing yet, and all that it has sent has come to the server."""
        sent = [path for path in self._paths if path.to_server and not path.segment.flags & RST]
        if any(_is_fin(path) for path in sent):
            return False
        ends_ = [path.segment.end for path in sent if path.segment.end != path.segment.seq]
        if not ends_:
            return True
        last = max(ends_, key=lambda end: seq_diff(end, ends_[0]))
        came = [(came_ns, path) for path in sent if (came_ns := self._came(path)) is not None]
        return accepting.complete(came, last) is not None

    def _refusal(self, deaths: Iterable[Death], opened_ns: int | None) -> PacketFinding | DatagramPath | None:
        """What refused the client's SYN: a RST that answers it, or an ICMP error about it that came to the client."""
        if opened_ns is not None:
            return None
        for death in deaths:
            asked = death.rst.answer.answers if death.rst.answer is not None else None
            if death.netns == self._flow.client and asked is not None and _is_syn(asked):
                return death.rst
        first = self._flow.headers()[0]
        for path in self._timeline.datagram_paths:
            about = path.datagram.about
            if about is None or about.proto != IPPROTO_TCP or not self._incarnation.has(path.time_ns):
                continue
            came = path.last.netns == self._flow.client and path.last.direction is Direction.IN
            header = path.last.datagram.about
            if came and header is not None and ends(header) == first:
                return path
        return None

    def _ending(
        self,
        deaths: Sequence[Death],
        errors: Sequence[SocketEvent],
        refusal: PacketFinding | DatagramPath | None,
        opened_ns: int | None,
        closed: Mapping[bool, int | None],
    ) -> Ending:
        if refusal is not None:
            return Ending.REFUSED
        if deaths:
            return self._reset_ending(deaths[0], opened_ns)
        if any(event.errno == errno.ECONNRESET for event in errors):
            return Ending.RESET_BY_PEER
        if any(event.errno == errno.ECONNREFUSED for event in errors):
            return Ending.REFUSED
        if closed[False] is not None and (closed[True] is not None or self._client_is_heard()):
            return Ending.COMPLETED
        if closed[True] is not None or closed[False] is not None:
            return Ending.HALF_CLOSED
        tried = any(_is_syn(path) for path in self._paths)
        return Ending.SYN_UNANSWERED if tried and opened_ns is None else Ending.UNFINISHED

    def _reset_ending(self, death: Death, opened_ns: int | None) -> Ending:
        asked = death.rst.answer.answers if death.rst.answer is not None else None
        begun = any(_is_syn(path) for path in self._paths)
        if begun and (opened_ns is None or death.rst.path.time_ns < opened_ns):
            return Ending.RESET_IN_HANDSHAKE
        if asked is not None and self._packet_left_alone(asked):
            return Ending.RESET
        return Ending.RESET_BY_PEER

    def _packet_left_alone(self, path: PacketPath) -> bool:
        return any(visit.nat in LEFT_ALONE for visit in self._translations.visits(path))


def _is_syn(path: PacketPath) -> bool:
    return path.to_server and path.segment.flags & (SYN | ACK) == SYN


def _is_fin(path: PacketPath) -> bool:
    return bool(path.segment.flags & FIN)


def _error_after(errors: Iterable[SocketEvent], rst: PacketPath) -> SocketEvent | None:
    """The error that a RST gave the socket that it came to."""
    came = rst.last
    resets = (errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE)
    return next((e for e in errors if e.netns == came.netns and e.errno in resets and e.time_ns >= came.time_ns), None)


def _by_their_errors(
    doubtful: Sequence[PacketFinding], deaths: Sequence[Death], errors: Sequence[SocketEvent]
) -> tuple[list[Death], list[PacketFinding]]:
    """Of the RSTs of which the numbers alone don't tell: those that an error follows which nothing else explains."""
    explained = {death.error for death in deaths}
    told: list[Death] = []
    left: list[PacketFinding] = []
    for found in doubtful:
        error = _error_after(errors, found.path)
        if error is not None and error not in explained and all(other.error != error for other in told):
            told.append(Death(found, found.path.last.netns, error))
        else:
            left.append(found)
    return told, left


def socket_events(timeline: Timeline, flow: Flow, kind: SocketEventKind) -> list[SocketEvent]:
    """The events of the flow's own sockets: by their ports, or, where these were not told, when no other flow lived."""

    def lived(other: Flow, time_ns: int) -> bool:
        paths = timeline.of(other)
        return bool(paths) and paths[0].time_ns <= time_ns <= paths[-1].last.time_ns + LATE_NS

    peer_port = flow.peer[1]

    def own(event: SocketEvent) -> bool:
        if event.netns == flow.client and event.local_port == flow.client_port:
            return True
        if event.netns == flow.server and event.peer_port:
            return event.peer_port in (flow.client_port, peer_port) and event.local_port in (0, flow.target_port)
        if event.netns not in (flow.client, flow.server) or event.local_port:
            return False
        return [other for other in timeline.flows if lived(other, event.time_ns)] == [flow]

    return [event for event in timeline.of_sockets if event.kind is kind and own(event)]
