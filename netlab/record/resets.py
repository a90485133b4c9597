"""Which RST on the wire is one that the kernel told of sending, or of accepting. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from netlab.record.drops import ACCURACY_NS
from netlab.record.events import ACK, RST, Direction, Packet, ResetKind, Segment, TcpReset, Tuple

_LEAVES_WITHIN_NS = 100_000_000
"""How long a RST may take from TCP to an interface, or (one of a close's own) have left before it is told of."""


def attach(resets: Iterable[TcpReset], packets: Iterable[Packet]) -> list[tuple[TcpReset, Packet | None]]:
    """Each of the resets, by time, with the crossing of its RST in its own namespace; None where nobody can know.

    The RST that was sent is the first to leave, after what it answers was told, with the numbers that RFC 9293 has for
    it; of a close's own, the one that leaves nearest to it. The RST that was accepted is the last to come before with
    RCV.NXT as its number; where that is not known, the only one that came. NAT on the way out of the namespace itself
    hides it.
    """
    rsts = sorted((packet for packet in packets if packet.segment.flags & RST), key=lambda packet: packet.time_ns)
    found: list[tuple[TcpReset, Packet | None]] = []
    for reset in sorted(resets, key=lambda reset: reset.time_ns):
        own = [packet for packet in rsts if packet.netns == reset.netns]
        rst = _sent(reset, own) if reset.kind is ResetKind.SENT else _accepted(reset, own)
        found.append((reset, rst))
        if rst is not None:
            rsts.remove(rst)
    return found


def _sent(reset: TcpReset, rsts: Iterable[Packet]) -> Packet | None:
    near = [
        packet
        for packet in rsts
        if packet.direction is Direction.OUT and abs(packet.time_ns - reset.time_ns) <= _LEAVES_WITHIN_NS
    ]
    answered = reset.answered
    if answered is not None:
        after = (packet for packet in near if packet.time_ns >= reset.time_ns - ACCURACY_NS)
        return next((packet for packet in after if _answers(packet.segment, answered)), None)
    own = [packet for packet in near if reset.socket and _ends(packet.segment) == _ends(reset.socket)]
    return min(own, key=lambda packet: abs(packet.time_ns - reset.time_ns), default=None)


def _answers(rst: Segment, answered: Segment) -> bool:
    """RFC 9293, section 3.10.7.1: the RST has the ACK's number, or acknowledges what had none."""
    if _ends(rst) != (answered.dst, answered.dport, answered.src, answered.sport):
        return False
    return rst.seq == answered.ack if answered.flags & ACK else (rst.seq, rst.ack) == (0, answered.end)


def _accepted(reset: TcpReset, rsts: Iterable[Packet]) -> Packet | None:
    came = [
        packet
        for packet in rsts
        if packet.direction is Direction.IN
        and packet.time_ns <= reset.time_ns + ACCURACY_NS
        and reset.socket
        and _ends(packet.segment) == (*_ends(reset.socket)[2:], *_ends(reset.socket)[:2])
    ]
    if reset.rcv_nxt is not None:
        came = [packet for packet in came if packet.segment.seq == reset.rcv_nxt][-1:]
    return came[0] if len(came) == 1 else None


def _ends(header: Segment | Tuple) -> tuple[object, int, object, int]:
    return header.src, header.sport, header.dst, header.dport
