"""What held a connection up: causes read from the namespaces' counters, and the packets that each can explain. Pure.

A counter counts for its whole namespace. It is named as a cause only where packets of the connection were last seen at
just that namespace, or, of its ICMP errors, where none came out of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from netlab.analysis.findings import ConnectionFinding, Ending
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.timeline import Timeline
from netlab.model import Address
from netlab.record import words
from netlab.record.events import ACK, FIN, RST, SYN, CounterChange, Direction, NeighbourChange, TraceStep


class StallKind(StrEnum):
    """Why packets did not get on, or why an end sends nothing."""

    TOO_BIG = "too-big"
    """They are larger than the next link takes, and may not be fragmented."""
    REVERSE_PATH = "reverse-path"
    """The way back to their source leads out by another interface (rp_filter)."""
    NO_ROUTE = "no-route"
    NO_NEIGHBOUR = "no-neighbour"
    """Nobody answered for the next hop's address."""
    DROPPED = "dropped"
    """A rule drops them."""
    ZERO_WINDOW = "zero-window"
    """The other end reads nothing: its window is closed."""
    LISTEN_QUEUE = "listen-queue"
    """The listening socket's queue is full."""
    THROWN_AWAY = "thrown-away"
    """The kernel drops them, for another reason."""


@dataclass(frozen=True, slots=True)
class Stall:
    """One cause: where it is, how often the kernel counted it, and the numbers of the packets that it can explain.

    counter is the kernel's own name for what it counted. size_bytes is the smallest frame of those that are TOO_BIG.
    rule is the one that took the packets, or the ICMP error that would have told the sender; unheard: no such error was
    seen to reach the sender, though errors_made of them are counted as made there. reason is the kernel's own word for
    these very packets; then counter is empty. neighbour is the address that nobody answered for.
    """

    kind: StallKind
    netns: str
    numbers: tuple[int, ...] = ()
    count: int = 0
    counter: str = ""
    size_bytes: int = 0
    rule: TraceStep | None = None
    unheard: bool = False
    errors_made: int = 0
    reason: str = ""
    neighbour: Address | None = None


_COUNTED: Mapping[StallKind, tuple[str, ...]] = {
    StallKind.TOO_BIG: ("Ip.FragFails", "Ip6FragFails", "Ip6InTooBigErrors"),
    StallKind.REVERSE_PATH: ("TcpExt.IPReversePathFilter",),
    StallKind.NO_ROUTE: ("IpExt.InNoRoutes", "Ip.OutNoRoutes", "Ip6InNoRoutes", "Ip6OutNoRoutes"),
}
"""The counters of each kind, by the names in /proc/net/snmp, netstat and snmp6."""

_REASONS: Mapping[str, StallKind] = {
    "PKT_TOO_BIG": StallKind.TOO_BIG,
    "IP_RPFILTER": StallKind.REVERSE_PATH,
    "IP_INNOROUTES": StallKind.NO_ROUTE,
    "IP_OUTNOROUTES": StallKind.NO_ROUTE,
    "NEIGH_FAILED": StallKind.NO_NEIGHBOUR,
    "NEIGH_QUEUEFULL": StallKind.NO_NEIGHBOUR,
    "NEIGH_DEAD": StallKind.NO_NEIGHBOUR,
}
"""The kind of each of the kernel's reasons (enum skb_drop_reason, include/net/dropreason-core.h)."""


def kind_of(reason: str) -> StallKind:
    """What a drop for that reason of the kernel's is called."""
    return _REASONS.get(reason, StallKind.THROWN_AWAY)


_ERRORS = ("IcmpMsg.OutType3", "Icmp6OutPktTooBigs")
"""The counters of the ICMP errors that say so, made whether or not they leave."""


_SILENCE_NS = 10_000_000_000
"""How much later than its packets a neighbour may be given up: by default three questions, a second apart."""


def stalls(timeline: Timeline, found: ConnectionFinding) -> tuple[Stall, ...]:
    """What held up a connection that neither completed nor was reset; empty where nothing was seen that did."""
    counters = _counters(timeline, found)
    causes = [*_lost(timeline, found, counters), *_unanswered(found, counters), *_closed_windows(found)]
    return tuple(causes)


def _counters(timeline: Timeline, found: ConnectionFinding) -> Mapping[str, Counter[str]]:
    """How far each namespace's counters went: they are read at the end of what they count."""
    counted: dict[str, Counter[str]] = {}
    since_ns = found.incarnation.paths[0].time_ns if found.incarnation.paths else 0
    for event in timeline.events:
        if isinstance(event, CounterChange) and event.time_ns >= since_ns:
            counted.setdefault(event.netns, Counter())[event.name] += event.by
    return counted


def _lost(timeline: Timeline, found: ConnectionFinding, counters: Mapping[str, Counter[str]]) -> Iterator[Stall]:
    """Packets that were last seen as they came into a namespace that was to forward them, or take them."""
    ways: dict[tuple[str, Direction], list[PacketPath]] = {}
    rules: dict[TraceStep, list[PacketPath]] = {}
    reasons: dict[tuple[str, str], list[PacketPath]] = {}
    for each in found.packets:
        path, thrown = each.path, each.thrown_away
        if each.drop is not None:
            rules.setdefault(_rule(each.drop), []).append(path)
        elif thrown is not None and path.fate is Fate.UNSEEN:
            reasons.setdefault((thrown.netns, thrown.reason), []).append(path)
        elif path.fate is Fate.UNSEEN:
            ways.setdefault((path.last.netns, path.last.direction), []).append(path)
    for rule, paths in rules.items():
        if not _got_through(found, paths):
            yield Stall(StallKind.DROPPED, rule.netns, _numbers(paths), len(paths), rule=rule)
    for (netns, reason), paths in reasons.items():
        kind = kind_of(reason)
        stall = Stall(kind, netns, _numbers(paths), len(paths), reason=reason)
        if kind is StallKind.TOO_BIG:
            yield _too_big(timeline, stall, paths, counters.get(netns, Counter()))
        elif kind is StallKind.NO_NEIGHBOUR:
            yield replace(stall, neighbour=_silent(timeline, netns, paths))
        elif not _got_through(found, paths):
            yield stall
    for (netns, _), paths in ways.items():
        own = counters.get(netns, Counter())
        silent = _silent(timeline, netns, paths)
        if silent is not None:
            yield Stall(StallKind.NO_NEIGHBOUR, netns, _numbers(paths), neighbour=silent)
            continue
        for kind, names in _COUNTED.items():
            name = next((name for name in names if own[name]), None)
            if name is None:
                continue
            stall = Stall(kind, netns, _numbers(paths), own[name], name)
            yield _too_big(timeline, stall, paths, own) if kind is StallKind.TOO_BIG else stall


def _silent(timeline: Timeline, netns: str, paths: Sequence[PacketPath]) -> Address | None:
    """The neighbour that a namespace asked for in vain while these packets waited; None where there was none, or two.

    Several neighbours may be silent: which of them these packets were for is not known then.
    """
    since_ns, until_ns = paths[0].last.time_ns, paths[-1].last.time_ns + _SILENCE_NS
    failed = {
        event.neighbour.address
        for event in timeline.events
        if isinstance(event, NeighbourChange) and event.netns == netns and event.neighbour.state == "FAILED"
        if since_ns <= event.time_ns <= until_ns
    }
    return failed.pop() if len(failed) == 1 else None


def _rule(step: TraceStep) -> TraceStep:
    """The rule of a step, the same for each packet that it took."""
    return TraceStep(
        0, step.netns, 0, step.family, step.table, step.chain, step.rule, step.verdict, rule_handle=step.rule_handle
    )


def _got_through(found: ConnectionFinding, paths: Sequence[PacketPath]) -> bool:
    """Whether all that these carried arrived all the same, by copies."""
    for path in paths:
        segment = path.segment
        if segment.end == segment.seq:
            continue
        arrived = (
            other
            for other in found.incarnation.paths
            if other.to_server is path.to_server and other.fate is Fate.DELIVERED and other.segment.seq == segment.seq
        )
        if next(arrived, None) is None:
            return False
    return True


def _too_big(timeline: Timeline, stall: Stall, paths: Sequence[PacketPath], own: Mapping[str, int]) -> Stall:
    """With the smallest of the frames, and what became of the ICMP errors about them."""
    size = min(part.wire_bytes for path in paths for hop in path.hops[-1:] for part in hop.parts)
    heard = any(
        error.datagram.about is not None and error.delivered and error.hops[0].netns == stall.netns
        for error in timeline.datagram_paths
    )
    rule = next(
        (
            event
            for event in timeline.events
            if isinstance(event, TraceStep) and event.verdict == "drop" and event.datagram is not None
            if event.datagram.about is not None and event.netns == stall.netns
        ),
        None,
    )
    left = any(error.hops[0].netns == stall.netns for error in timeline.datagram_paths if error.datagram.about)
    made = 0 if left else max((own.get(name, 0) for name in _ERRORS), default=0)
    return replace(stall, size_bytes=size, rule=rule, unheard=not heard, errors_made=made)


def _numbers(paths: Sequence[PacketPath]) -> tuple[int, ...]:
    return tuple(path.number for path in paths)


def _unanswered(found: ConnectionFinding, counters: Mapping[str, Counter[str]]) -> Iterator[Stall]:
    """SYNs that came to the server's namespace, and were dropped there for want of room."""
    server = found.flow.server
    own = counters.get(server, Counter())
    if found.ending is Ending.SYN_UNANSWERED:
        name = next((name for name in ("TcpExt.ListenOverflows", "TcpExt.ListenDrops") if own[name]), None)
        syns = [path for path in found.incarnation.paths if path.to_server and path.segment.flags & (SYN | ACK) == SYN]
        if name is not None:
            yield Stall(StallKind.LISTEN_QUEUE, server, _numbers(syns), own[name], name)


def _closed_windows(found: ConnectionFinding) -> Iterator[Stall]:
    """The ends whose last word is that they have no room."""
    flow = found.flow
    for to_server, end in ((True, flow.client), (False, flow.server)):
        said = [path for path in found.incarnation.paths if path.to_server is to_server]
        last = said[-1] if said else None
        if last is not None and not last.segment.window and not last.segment.flags & (RST | SYN | FIN):
            yield Stall(StallKind.ZERO_WINDOW, end, (last.number,))


def describe_stall(stall: Stall) -> str:
    """The cause in words."""
    numbers = f"#{stall.numbers[0]}" if stall.numbers else "packets"
    if len(stall.numbers) > 1:
        numbers += f" and {len(stall.numbers) - 1:,} more"
    counted = f"({stall.counter} counted {stall.count:,})" if stall.counter else f"(the kernel says {stall.reason})"
    match stall.kind:
        case StallKind.TOO_BIG:
            told = ""
            if stall.rule is not None:
                told = f"; its ICMP error is dropped on {stall.rule.netns} by {words.rule(stall.rule)}"
            elif stall.unheard and stall.errors_made:
                made = f"{stall.errors_made:,} ICMP errors about it were made there, and none was seen to leave"
                told = f"; {made}: a rule there drops them, and the sender goes on with that size"
            elif stall.unheard:
                told = "; no ICMP error about it reached the sender, which goes on with that size"
            size = f", frames of {stall.size_bytes:,} bytes and more," if stall.size_bytes else ""
            return f"{numbers}{size} need fragmentation on {stall.netns} and may not be fragmented {counted}{told}"
        case StallKind.REVERSE_PATH:
            why = "the route back uses another interface"
            return f"{numbers} fail the reverse path filter on {stall.netns}: {why} {counted}"
        case StallKind.NO_ROUTE:
            return f"{numbers} find no route on {stall.netns} {counted}"
        case StallKind.NO_NEIGHBOUR:
            whom = f"{stall.neighbour}, which" if stall.neighbour is not None else "a neighbour that"
            return f"{numbers} wait on {stall.netns} for {whom} never answers"
        case StallKind.THROWN_AWAY:
            return f"{numbers} are dropped by the kernel of {stall.netns}: {stall.reason}"
        case StallKind.DROPPED:
            assert stall.rule is not None
            return f"{numbers} are dropped on {stall.netns} by {words.rule(stall.rule)}, again and again"
        case StallKind.ZERO_WINDOW:
            return f"{stall.netns} has kept its window closed since {numbers}: its program reads nothing"
        case StallKind.LISTEN_QUEUE:
            return f"the listening socket in {stall.netns} has no room: its queue is full {counted}"
