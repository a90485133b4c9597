"""Who made a RST, and what it answers: a socket, a kernel without one, a rule that rejects, or netlab itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from netlab.analysis.paths import PacketPath
from netlab.analysis.told import Told
from netlab.record.events import ACK, RST, SYN, Direction, TraceStep
from netlab.record.flow import Ends, Flow, ends, inverse
from netlab.record.recording import ClosedSocket


class Maker(StrEnum):
    """What sent a RST."""

    NO_SOCKET = "no-socket"
    """A kernel that has no socket for what came to it: the RST answers that."""
    REFUSAL = "refusal"
    """The socket in its handshake, of something that acknowledges what it never sent."""
    GONE = "gone"
    """A kernel whose socket of this connection is closed: the RST answers what came after that."""
    ABORT = "abort"
    """The socket itself: its program closed it with data unread, or gave it up."""
    RULE = "rule"
    """A rule that rejects."""
    STIMULUS = "stimulus"
    """netlab, as a step of the experiment."""
    NOT_TCP = "not-tcp"
    """Not the TCP of its namespace, by the kernel's word or its count: a rule that was not seen, or a raw socket."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a RST is from. sender is the namespace where it was first seen; answers the packet that it answers, if one.

    rule is the rule that rejected that packet. by_netlab: netlab had closed the socket, as a step says, or at a trial's
    end. seen: the sender's own interface was seen to send it; otherwise it came into what is named as sender from out
    of sight. reason is the kernel's own, empty where it was not told.
    """

    maker: Maker
    sender: str
    answers: PacketPath | None = None
    rule: TraceStep | None = None
    seen: bool = True
    by_netlab: bool = False
    reason: str = ""


def answer(
    rst: PacketPath,
    flow: Flow,
    paths: Sequence[PacketPath],
    forged: Iterable[int] = (),
    closed: Sequence[ClosedSocket] = (),
    told: Told | None = None,
) -> Answer:
    """What a RST is. paths are all its connection's packets in order of time, forged the numbers of netlab's own.

    closed are the sockets that netlab closed itself, told what the kernel says of the RSTs that its TCP sends.
    """
    found = _by_its_look(rst, flow, paths, forged, closed)
    if told is None or found.maker in (Maker.STIMULUS, Maker.RULE) or not found.seen:
        return found
    sent = told.sent.get(rst.number)
    if sent is None:
        # What NAT changes on the way out of its own namespace can't be told from others.
        counts = told.read_after(found.sender, rst.time_ns)
        not_its = told.whole or (counts is not None and not counts.get("Tcp.OutRsts", 0))
        known = not_its and flow.node != found.sender
        return replace(found, maker=Maker.NOT_TCP, by_netlab=False) if known else found
    aborts = sent.answered is None and found.maker is Maker.UNKNOWN
    return replace(found, maker=Maker.ABORT if aborts else found.maker, reason=sent.reason)


def _by_its_look(
    rst: PacketPath,
    flow: Flow,
    paths: Sequence[PacketPath],
    forged: Iterable[int],
    closed: Sequence[ClosedSocket],
) -> Answer:
    """What a RST is by its numbers, and by what came before it."""
    first = rst.hops[0]
    sender, seen = first.netns, first.direction is Direction.OUT
    if rst.number in forged:
        return Answer(Maker.STIMULUS, sender, seen=seen)
    asked = _asked(rst, paths)
    rule = rejection(asked.trace, sender) if asked is not None else None
    if rule is not None:
        return Answer(Maker.RULE, sender, asked, rule, seen)
    if not seen:
        return Answer(Maker.UNKNOWN, sender, asked, seen=False)
    own = _own_header(flow, to_server=rst.to_server)
    if first.ends != own or sender != _end(flow, to_server=rst.to_server):
        return Answer(Maker.NO_SOCKET if asked is not None else Maker.UNKNOWN, sender, asked)
    ours = by_netlab(closed, flow, rst.time_ns, to_server=rst.to_server)
    if asked is None:
        return Answer(Maker.ABORT if rst.segment.flags & ACK else Maker.UNKNOWN, sender, by_netlab=ours)
    if asked.segment.flags & SYN and not asked.segment.flags & ACK:
        return Answer(Maker.NO_SOCKET, sender, asked)
    in_handshake = not any(
        path.to_server is not rst.to_server
        and path.segment.flags & SYN
        and path.segment.ack == _syn_end(rst, paths)
        and path.number != asked.number
        and path.time_ns <= rst.time_ns
        for path in paths
    )
    if rst.to_server and in_handshake and _syn_end(rst, paths) is not None:
        return Answer(Maker.REFUSAL, sender, asked)
    return Answer(Maker.GONE, sender, asked, by_netlab=ours)


def _syn_end(rst: PacketPath, paths: Iterable[PacketPath]) -> int | None:
    """The end of the newest SYN that the RST's sender had sent by then."""
    found = None
    for path in paths:
        if path.time_ns > rst.time_ns:
            break
        if path.to_server is rst.to_server and path.segment.flags & SYN:
            found = path.segment.end
    return found


def _asked(rst: PacketPath, paths: Sequence[PacketPath]) -> PacketPath | None:
    """The packet that a RST answers: the last that had come to its sender with just that header the other way round.

    Without ACK, a RST has what it answers acknowledges as its number; with ACK, it acknowledges what it answers (RFC
    9293, section 3.10.7.1).
    """
    sender, header = rst.hops[0].netns, inverse(rst.hops[0].ends)
    found, found_ns = None, 0
    for path in paths:
        segment, came_ns = path.segment, _came(path, sender, header)
        if path.to_server is rst.to_server or segment.flags & RST or came_ns is None:
            continue
        if rst.segment.flags & ACK:
            answered = not segment.flags & ACK and segment.end == rst.segment.ack
        else:
            answered = bool(segment.flags & ACK) and segment.ack == rst.segment.seq
        if answered and found_ns <= came_ns <= rst.time_ns:
            found, found_ns = path, came_ns
    return found


def _came(path: PacketPath, netns: str, header: Ends) -> int | None:
    """When a packet came into a namespace with that header; None if it did not."""
    here = (hop for hop in path.hops if hop.netns == netns and hop.direction is Direction.IN)
    return next((hop.time_ns for hop in here if hop.ends == header), None)


def rejection(trace: Iterable[TraceStep], netns: str) -> TraceStep | None:
    """The rule that rejected a packet in a namespace: its verdict is drop, its text says what it sent (nft_reject)."""
    rejects = (step for step in trace if step.verdict == "drop" and "reject" in step.rule.split())
    return next((step for step in rejects if step.netns == netns), None)


def by_netlab(closed: Iterable[ClosedSocket], flow: Flow, time_ns: int, *, to_server: bool) -> bool:
    """Whether netlab had closed a connection's socket by then: the one that sends to the server, or the other one."""
    netns, headers = _end(flow, to_server=to_server), (_own_header(flow, to_server=to_server), flow.headers()[0])
    return any(one.netns == netns and one.time_ns <= time_ns and ends(one.header) in headers for one in closed)


def _end(flow: Flow, *, to_server: bool) -> str:
    return flow.client if to_server else flow.server


def _own_header(flow: Flow, *, to_server: bool) -> Ends:
    """The header of what an end's socket of this connection sends, where it leaves its namespace."""
    headers = flow.headers()
    if not to_server:
        return inverse(headers[-1])
    # A client's own namespace may translate what it sends before any interface sees it.
    return headers[1] if flow.node == flow.client and len(headers) > 1 else headers[0]
