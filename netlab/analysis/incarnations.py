"""The connections that a flow has had, one after another: a client may use the same port again. Pure.

Each begins with a SYN of the client's that has a number of its own. What is left of the one before, at the server or in
conntrack, may answer it, and is refused by a RST of the client's before the handshake is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netlab.analysis.paths import PacketPath
from netlab.record.events import ACK, RST, SYN, Direction
from netlab.record.flow import Flow


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One connection. paths are its packets in order; earlier how many of the flow's packets came before it.

    until_ns is when the next one begins, None for the last.
    """

    flow: Flow
    paths: tuple[PacketPath, ...]
    earlier: int = 0
    until_ns: int | None = None

    def has(self, time_ns: int) -> bool:
        """Whether the moment is in this connection's time."""
        begun = not self.earlier or self.paths[0].time_ns <= time_ns
        return begun and (self.until_ns is None or time_ns < self.until_ns)

    def refusals(self) -> tuple[PacketPath, ...]:
        """The client's RSTs to what an earlier connection answered its SYN with; they are not the end of this one."""
        if not self.paths or not _is_syn(self.paths[0]):
            return ()
        syn = self.paths[0].segment
        opened_ns = next(
            (
                arrived.time_ns
                for path in self.paths
                if not path.to_server and path.segment.flags & (SYN | ACK) == SYN | ACK
                if path.segment.ack == syn.end and (arrived := path.at(self.flow.client, Direction.IN))
            ),
            None,
        )
        return tuple(
            path
            for path in self.paths
            if path.to_server and path.segment.flags & (RST | ACK) == RST
            if opened_ns is None or path.time_ns < opened_ns
        )


def incarnations(flow: Flow, paths: Sequence[PacketPath]) -> list[Incarnation]:
    """The flow's connections in order; one at least. Packets before the first SYN are an older one's."""
    starts = [0]
    number: int | None = None
    for index, path in enumerate(paths):
        if _is_syn(path) and path.segment.seq != number:
            if index:
                starts.append(index)
            number = path.segment.seq
    ends = [*starts[1:], len(paths)]
    return [
        Incarnation(flow, tuple(paths[start:end]), start, paths[end].time_ns if end < len(paths) else None)
        for start, end in zip(starts, ends, strict=True)
    ]


def _is_syn(path: PacketPath) -> bool:
    return path.to_server and path.segment.flags & (SYN | ACK) == SYN
