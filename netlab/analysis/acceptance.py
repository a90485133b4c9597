"""What a receiver's TCP can make of a RST: end the connection, ask back with a challenge ACK, or nothing. Pure.

The rules are RFC 5961's as the kernel has them (tcp_validate_incoming() and tcp_reset_check() in net/ipv4/tcp_input.c,
tcp_rcv_synsent_state_process() there, tcp_check_req() in net/ipv4/tcp_minisocks.c): exactly RCV.NXT ends it; so does
the right edge of the newest selectively acknowledged data, and one before RCV.NXT once the peer has closed; what else
lies in the window gets a challenge ACK; the rest is thrown away. RCV.NXT is computed from what came to the receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from netlab.analysis.paths import PacketPath
from netlab.record.events import ACK, FIN, RST, SYN, Direction, Segment, seq_diff
from netlab.record.flow import Ends, Flow, inverse


class Acceptance(StrEnum):
    """What a RST can do to the socket that it comes to."""

    ENDS = "ends"
    """Its number is the one that ends the connection."""
    CHALLENGED = "challenged"
    """It lies in the window, elsewhere: the receiver answers with an ACK, and lives on."""
    IGNORED = "ignored"
    """It lies outside the window, or acknowledges nothing that a SYN waits for: it is thrown away."""
    STRAY = "stray"
    """No socket of the connection has that header, or it is closed: it does no harm."""
    UNKNOWN = "unknown"
    """Too little of what came before was seen."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One end of a connection: its namespace, and the headers of its packets where these come in and leave there.

    Where NAT is the namespace's own, these are not the headers that the socket itself knows.
    """

    netns: str
    comes: Ends
    leaves: Ends

    @property
    def nat_is_own(self) -> bool:
        """Whether its namespace translates what comes in."""
        return self.leaves != inverse(self.comes)


Came = Callable[[PacketPath], int | None]
"""When a packet came to the socket that it was for; None if it did not."""


def judge(rst: PacketPath, receiver: Receiver, paths: Sequence[PacketPath], came: Came) -> Acceptance:
    """What becomes of a RST that came to a namespace: paths are the connection's packets, in the order of time."""
    when_ns = came(rst)
    if when_ns is None:
        return Acceptance.STRAY
    end = _End(receiver, came)
    for path in paths:
        if path.number != rst.number:
            end.take(path, when_ns)
    return end.acceptance(rst.segment)


class _End:
    """What one end has been sent, and has said, up to a moment."""

    def __init__(self, receiver: Receiver, came: Came) -> None:
        self._receiver, self._came = receiver, came
        self._syn: Segment | None = None
        self._base: int | None = None
        self._pieces: list[tuple[int, int]] = []
        self._edge: int | None = None
        self._acked: int | None = None
        self._scale = 0
        self._peer_closed = self._closed = False

    def take(self, path: PacketPath, until_ns: int) -> None:
        segment, own = path.segment, path.hops[0]
        sent = own.netns == self._receiver.netns and own.direction is Direction.OUT
        if sent and own.ends == self._receiver.leaves:
            if own.time_ns <= until_ns:
                self._sends(segment)
            return
        if path.last.netns != self._receiver.netns or path.last.ends != self._receiver.comes:
            return
        came_ns = self._came(path)
        if came_ns is not None and came_ns <= until_ns and not segment.flags & RST:
            self._gets(segment)

    def _sends(self, segment: Segment) -> None:
        if segment.flags & SYN:
            self._syn, self._scale = segment, segment.wscale or 0
            self._closed = False
        if segment.flags & RST:
            self._closed = True
        if segment.flags & ACK:
            window = segment.window << (0 if segment.flags & SYN else self._scale)
            edge = (segment.ack + window) & 0xFFFFFFFF
            if self._edge is None or seq_diff(edge, self._edge) > 0:
                self._edge = edge
            if self._acked is None or seq_diff(segment.ack, self._acked) > 0:
                self._acked = segment.ack

    def _gets(self, segment: Segment) -> None:
        if segment.flags & SYN:
            self._base = segment.seq
            self._pieces = []
            if segment.wscale is None:
                self._scale = 0
        if self._base is not None and segment.end != segment.seq:
            start = seq_diff(segment.seq, self._base)
            self._pieces.append((start, start + seq_diff(segment.end, segment.seq)))
        self._peer_closed = self._peer_closed or bool(segment.flags & FIN)

    def acceptance(self, rst: Segment) -> Acceptance:
        if self._closed:
            return Acceptance.STRAY
        if self._base is None:
            if self._syn is None:
                return Acceptance.UNKNOWN if self._acked is None else self._by_acks(rst)
            answers = bool(rst.flags & ACK) and rst.ack == self._syn.end
            return Acceptance.ENDS if answers else Acceptance.IGNORED
        following, islands = _contiguous(self._pieces)
        expected = (self._base + following) & 0xFFFFFFFF
        wanted = {expected}
        if islands:
            wanted.add((self._base + max(islands)) & 0xFFFFFFFF)
        if self._peer_closed:
            wanted.add((expected - 1) & 0xFFFFFFFF)
        if rst.seq in wanted:
            return Acceptance.ENDS
        if self._acked is not None and rst.seq == self._acked:
            # What came since may have been refused, for want of room: then this is what it waits for.
            return Acceptance.UNKNOWN
        beyond = seq_diff(rst.seq, expected)
        room = seq_diff(self._edge, expected) if self._edge is not None else 0
        return Acceptance.CHALLENGED if 0 <= beyond <= max(room, 0) else Acceptance.IGNORED

    def _by_acks(self, rst: Segment) -> Acceptance:
        """Where the beginning was not seen: the receiver's own ACKs say what it waits for, or a little less."""
        return Acceptance.ENDS if rst.seq == self._acked else Acceptance.UNKNOWN


def _contiguous(pieces: Iterable[tuple[int, int]]) -> tuple[int, list[int]]:
    """Up to where the pieces leave no hole, from 0 on; and the ends of those beyond the first hole."""
    following, islands = 0, []
    for start, end in sorted(pieces):
        if start <= following:
            following = max(following, end)
        else:
            islands.append(end)
    return following, islands


def receivers(flow: Flow, translators: Sequence[str]) -> tuple[Receiver, Receiver]:
    """The client's end and the server's; translators are the namespaces that translate, from the client's side on."""
    way = flow.headers()
    first, last = way[0], way[-1]
    if flow.client in translators[:1] and len(way) > 1:
        client = Receiver(flow.client, inverse(way[1]), way[1])
    else:
        client = Receiver(flow.client, inverse(first), first)
    if flow.server in translators[-1:] and len(way) > 1:
        return client, Receiver(flow.server, way[-2], inverse(way[-2]))
    return client, Receiver(flow.server, last, inverse(last))


def complete(pieces: Iterable[tuple[int, PacketPath]], end: int) -> int | None:
    """When all up to the sequence number `end` had come; pieces are the packets of one direction, and when they came.

    None where something is missing. The counting begins with the newest SYN: what came before it is of an earlier
    connection. Without a SYN it begins with the first packet.
    """
    in_order = sorted(pieces, key=lambda piece: piece[0])
    syns = [path.segment.seq for _, path in in_order if path.segment.flags & SYN]
    base: int | None = None
    got: list[tuple[int, int]] = []
    for came_ns, path in in_order:
        segment = path.segment
        if base is None:
            if syns and not (segment.flags & SYN and segment.seq == syns[-1]):
                continue
            base = segment.seq
        start = seq_diff(segment.seq, base)
        got.append((start, start + seq_diff(segment.end, segment.seq)))
        if _contiguous(got)[0] >= seq_diff(end, base):
            return came_ns
    return None
