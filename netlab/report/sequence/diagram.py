"""What a sequence diagram holds: its columns, and its rows in the order of time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.paths import PacketPath
from netlab.analysis.result import Link
from netlab.record.flow import Flow

BAD = frozenset({"INVALID", "DROP", "LOST"})
"""The marks of what went wrong."""


@dataclass(frozen=True, slots=True)
class Column:
    """A namespace's lifeline. label is its address in this connection ("VIP 192.168.0.2"); it may be empty."""

    netns: str
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A word at a namespace on a packet's way: NAT, a state of conntrack's, INVALID, LOGGED, DROP or LOST."""

    column: int
    word: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A packet on its way from column `start` to column `end`, which is the smaller for one from right to left.

    came_to are the columns on the way, `end` among them, where it was seen to arrive. words are its flags, its numbers
    relative to the connection's first, its window in bytes and its length, piece by piece; kind is what it is counted
    as in a fold: noun and qualifier. notes say what befell it, in whole phrases. links are those of the chain that it
    is evidence of.
    """

    path: PacketPath | DatagramPath
    start: int
    end: int
    came_to: frozenset[int]
    words: tuple[str, ...]
    kind: tuple[str, str]
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
    links: tuple[Link, ...]

    @property
    def evidence(self) -> bool:
        """Whether the Result rests on it."""
        return bool(self.links)

    @property
    def number(self) -> int:
        """The packet's in the whole recording."""
        return self.path.number

    @property
    def time_ns(self) -> int:
        """When it was first seen."""
        return self.path.time_ns

    @property
    def payload_bytes(self) -> int:
        """How much it carries."""
        return self.path.segment.payload_bytes if isinstance(self.path, PacketPath) else 0

    @property
    def reach(self) -> int:
        """The column that its line is drawn to: the end, or the farthest on the way of a packet that comes back."""
        if self.end != self.start:
            return self.end
        return max(self.came_to, key=lambda column: abs(column - self.start), default=self.end)

    def marked(self, word: str) -> bool:
        """Whether it has that mark anywhere."""
        return any(mark.word == word for mark in self.marks)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that happened between the packets: a step of the experiment, an entry's or a socket's event."""

    time_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Fold:
    """Packets that are counted instead of shown, and the words for them."""

    time_ns: int
    arrows: tuple[Arrow, ...]
    text: str


Row: TypeAlias = Arrow | Remark | Fold


@dataclass(frozen=True, slots=True)
class Ladder:
    """The whole diagram, its rows in the order of time.

    began_ns is the zero of the times shown, server_isn the one of the server's sequence numbers, None where its SYN was
    not seen.
    """

    flow: Flow
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    began_ns: int
    server_isn: int | None = None

    def arrows(self) -> Iterator[Arrow]:
        """Every packet, folded or not."""
        for row in self.rows:
            if isinstance(row, Arrow):
                yield row
            elif isinstance(row, Fold):
                yield from row.arrows

    def ms(self, time_ns: int) -> str:
        """A moment as it is shown everywhere: "+95.495", in milliseconds since the beginning."""
        return f"{(time_ns - self.began_ns) / 1e6:+.3f}"
