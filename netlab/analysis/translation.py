"""What NAT made of a packet in each namespace that it came through, and why not, as values. Pure.

A namespace translates a connection where it has an entry whose two directions are not each other's inverse. It does so
only to packets that its IP layer handles and that conntrack gives that entry: one that stays on a bridge, one that
conntrack finds INVALID, one whose entry is gone or is another's passes as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise

from netlab.analysis.paths import Hop, NodeCheck, PacketPath, bridge_ports, bridged
from netlab.analysis.timeline import Timeline
from netlab.conntrack.values import CtOutcome
from netlab.kubeproxy.notrack import untracks
from netlab.record.events import ConntrackEvent, Direction, EntryChange, InvalidReason
from netlab.record.flow import Ends, Flow, ends, inverse
from netlab.record.wire import IPPROTO_TCP


class Nat(StrEnum):
    """What NAT in a namespace made of a packet."""

    NOTHING_DUE = "nothing-due"
    """There is nothing to translate here, or the packet didn't come so far."""
    TRANSLATED = "translated"
    INVALID = "invalid"
    """Conntrack found it INVALID: it has no entry, and NAT skips what has none."""
    ANOTHER_ENTRY = "another-entry"
    """Conntrack made an entry for it, as for a connection that this packet begins: without a translation."""
    NO_ENTRY = "no-entry"
    """Conntrack had no entry for it: it had run out, was deleted, or was never made."""
    BRIDGED = "bridged"
    """It stayed on a bridge, and never came to the IP layer."""
    UNTRACKED = "untracked"
    """A rule kept it from conntrack."""
    UNKNOWN = "unknown"
    """It was not translated, and why was not seen."""


LEFT_ALONE = frozenset(Nat) - {Nat.NOTHING_DUE, Nat.TRANSLATED}
"""The packet was to be translated, and was not."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A packet in one namespace: the interfaces there that it crossed, and what NAT made of it.

    due is the header that it was to get there, None where there was nothing to translate.
    """

    netns: str
    hops: tuple[Hop, ...]
    nat: Nat = Nat.NOTHING_DUE
    reason: InvalidReason | None = None
    due: Ends | None = None

    @property
    def came(self) -> Hop | None:
        """The interface that it came in by; None where it was made here."""
        return next((hop for hop in self.hops if hop.direction is Direction.IN), None)

    @property
    def left(self) -> Hop | None:
        """The interface that it left by; None where it stayed, or was lost."""
        last = self.hops[-1]
        return last if last.direction is Direction.OUT else None


@dataclass(frozen=True, slots=True)
class EntryLife:
    """An entry of one namespace's conntrack: from when on it was there, and until when, as far as was told."""

    netns: str
    original: Ends
    reply: Ends
    from_ns: int
    until_ns: int | None = None

    @property
    def translates(self) -> bool:
        """Whether packets get another header by it."""
        return inverse(self.reply) != self.original

    def there(self, time_ns: int) -> bool:
        """Whether it was there then."""
        return self.from_ns <= time_ns and (self.until_ns is None or time_ns < self.until_ns)


def entry_lives(timeline: Timeline, proto: int = IPPROTO_TCP) -> Mapping[str, tuple[EntryLife, ...]]:
    """The entries of each namespace's conntrack that are of a protocol, in the order in which they were made."""
    open_: dict[tuple[str, Ends], EntryLife] = {}
    lives: dict[str, list[EntryLife]] = {}
    for event in timeline.events:
        if not isinstance(event, ConntrackEvent) or event.tuple_orig.proto != proto:
            continue
        key, reply = (event.netns, ends(event.tuple_orig)), ends(event.tuple_reply)
        of_netns = lives.setdefault(event.netns, [])
        known = open_.get(key)
        if known is None or event.change is EntryChange.NEW:
            # What is told of first by another event than its making was there before.
            since = event.time_ns if event.change is EntryChange.NEW else timeline.recording.started_ns
            known = open_[key] = EntryLife(event.netns, key[1], reply, since)
            of_netns.append(known)
        if event.change is EntryChange.DESTROY:
            ended = EntryLife(known.netns, known.original, known.reply, known.from_ns, timeline.moment(event))
            of_netns[of_netns.index(known)] = ended
            del open_[key]
    return {netns: tuple(found) for netns, found in lives.items()}


class Translations:
    """What each namespace's NAT has to do for one connection, and did."""

    def __init__(self, timeline: Timeline, flow: Flow, lives: Mapping[str, Sequence[EntryLife]]) -> None:
        self._timeline, self._flow, self._lives = timeline, flow, lives
        self._topology = timeline.topology
        self._steps = dict(_steps(flow, lives))
        self._ports = bridge_ports(self._topology)

    @property
    def translators(self) -> tuple[str, ...]:
        """The namespaces that translate it, from the client's side to the server's."""
        return tuple(self._steps)

    def visits(self, path: PacketPath) -> tuple[Visit, ...]:
        """The namespaces that a packet came through, in order, and what NAT made of it in each."""
        found = []
        for netns, hops in groupby(path.hops, key=lambda hop: hop.netns):
            visit = Visit(netns, tuple(hops))
            reason = next((reason for reason in path.reasons if reason.netns == netns), None)
            nat = self._nat(path, visit)
            due = None if nat is Nat.NOTHING_DUE else self._due(path, netns)
            found.append(Visit(netns, visit.hops, nat, reason, due))
        return (*found, *self._out_of_sight(path, found))

    def _out_of_sight(self, path: PacketPath, visits: Sequence[Visit]) -> Iterator[Visit]:
        """The translator, of a reply that came to the client without its translation, and was not seen on its way."""
        headers, last, node = self._flow.headers(), path.last, self._flow.node
        if path.to_server or node is None or any(visit.netns == node for visit in visits):
            return
        if last.netns == self._flow.client and last.direction is Direction.IN and last.ends == inverse(headers[-1]):
            translates = len(headers) > 1
            nat, due = (Nat.UNKNOWN, self._due(path, node)) if translates else (Nat.NOTHING_DUE, None)
            yield Visit(node, (last,), nat, due=due)

    def _due(self, path: PacketPath, netns: str) -> Ends | None:
        """The header that a namespace is to give a packet of that direction."""
        step = self._steps.get(netns)
        if step is None:
            return None
        return step[1] if path.to_server else inverse(step[0])

    def _nat(self, path: PacketPath, visit: Visit) -> Nat:
        before, after = visit.hops[0].ends, visit.hops[-1].ends
        if before != after:
            return Nat.TRANSLATED
        step = self._steps.get(visit.netns)
        if step is None or visit.came is None:
            return Nat.NOTHING_DUE
        due, goal = (step[0], step[1]) if path.to_server else (inverse(step[1]), inverse(step[0]))
        if before != due:
            return Nat.NOTHING_DUE
        if any((rewrite.before, rewrite.after) == (due, goal) for rewrite in path.rewrites):
            return Nat.TRANSLATED  # though where it left was not seen
        stays = visit.left is None
        own = visit.netns == (self._flow.server if path.to_server else self._flow.client)
        if stays and not own and goal[2] != before[2] and self._is_home(visit.netns, goal):
            own = True
        if visit.left is not None and self._bridged(visit):
            return Nat.BRIDGED
        if invalid_at(path, visit.netns):
            return Nat.INVALID
        if stays and not own and not self._is_home(visit.netns, before):
            return Nat.NOTHING_DUE
        return self._without_entry(path, visit, before, in_sight=not (stays and own))

    def _without_entry(self, path: PacketPath, visit: Visit, header: Ends, *, in_sight: bool) -> Nat:
        """Why a valid packet was not translated; where that can't be seen (its socket is here), whether it was."""
        if self._topology is not None and untracks(self._topology, visit.netns, self._flow.vip, self._flow.port):
            return Nat.UNTRACKED
        came = visit.came
        assert came is not None
        lives = [life for life in self._lives.get(visit.netns, ()) if header in (life.original, life.reply)]
        if any(check.netns == visit.netns and picked_up(check) for check in path.checks):
            return Nat.ANOTHER_ENTRY
        there = [life for life in lives if life.there(came.time_ns)]
        if any(life.original == header and not life.translates for life in there):
            return Nat.ANOTHER_ENTRY
        if not there and lives:
            later = [life for life in lives if life.original == header and life.from_ns >= came.time_ns]
            return Nat.ANOTHER_ENTRY if later and not later[0].translates else Nat.NO_ENTRY
        if not in_sight:
            return Nat.TRANSLATED
        return Nat.UNKNOWN if there or not self._lives.get(visit.netns) else Nat.NO_ENTRY

    def _is_home(self, netns: str, header: Ends) -> bool:
        """Whether a header's destination is an address of the namespace."""
        return self._timeline.homes.get(header[2]) == netns

    def _bridged(self, visit: Visit) -> bool:
        return bridged([(hop.netns, hop.ifname, hop.direction) for hop in visit.hops], self._ports)


def invalid_at(path: PacketPath, netns: str) -> bool:
    """Whether conntrack found a packet INVALID there: by a rule that asked, by the model, or by the log alone.

    A packet that was translated there was not, whatever was logged: what conntrack ignores it logs, too.
    """
    if any(rewrite.netns in (netns, "") for rewrite in path.rewrites):
        return False
    if path.called_invalid(netns):
        return True
    checks = [check for check in path.checks if check.netns == netns]
    if any(check.invalid for check in checks):
        return True
    unjudged = not checks or all(check.checked.outcome is CtOutcome.UNMODELLED for check in checks)
    return unjudged and any(reason.netns == netns for reason in path.reasons)


def picked_up(check: NodeCheck) -> bool:
    """Whether conntrack made an entry for a packet in mid-stream."""
    after = check.checked.state_after
    return check.checked.state_before is None and after is not None and after.original.be_liberal


def _steps(flow: Flow, lives: Mapping[str, Sequence[EntryLife]]) -> Iterator[tuple[str, tuple[Ends, Ends]]]:
    """By namespace, in the order of the way: the header that it translates, and to which.

    Where the client's packets took another node from some point on, several do the same; the flow's comes first.
    """
    told: dict[tuple[Ends, Ends], list[str]] = {}
    for netns in sorted(lives, key=lambda name: name != flow.node):
        for life in lives[netns]:
            if life.translates:
                told.setdefault((life.original, inverse(life.reply)), []).append(netns)
    for before, after in pairwise(flow.headers()):
        node = [flow.node] if flow.node is not None else []
        for netns in told.get((before, after), node):
            yield netns, (before, after)
