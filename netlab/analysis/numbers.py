"""Sequence numbers as people count them: from the connection's initial ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from netlab.analysis.paths import PacketPath
from netlab.record.events import ACK, SYN, flag_names


class Numbers:
    """The initial sequence numbers of a flow's connections, and packets in words that count from them."""

    def __init__(self, paths: Iterable[PacketPath], probes: frozenset[int] = frozenset()) -> None:
        self._probes = probes
        self._initial: dict[bool, list[int]] = {}
        for path in paths:
            if path.segment.flags & SYN:
                self._initial.setdefault(path.to_server, []).append(path.segment.seq)

    def known(self, to_server: bool) -> bool:
        """Whether the initial number of that direction was seen."""
        return to_server in self._initial

    def relative(self, number: int, to_server: bool) -> int:
        """A sequence number, counted from the initial one before it where that was seen."""
        return min((number - initial) & 0xFFFFFFFF for initial in self._initial.get(to_server, [0]))

    def describe(self, path: PacketPath) -> str:
        """A packet in words: "PSH,ACK 768 bytes, seq 3841, ack 5"."""
        segment = path.segment
        flags = ",".join(flag_names(segment.flags)) or "no flags"
        size = "1 byte" if segment.payload_bytes == 1 else f"{segment.payload_bytes:,} bytes"
        parts = [f"{flags} {size}" if segment.payload_bytes else flags]
        parts += ["a probe of the closed window"] if path.number in self._probes else []
        parts.append(f"seq {self.relative(segment.seq, path.to_server)}")
        if segment.flags & ACK:
            parts.append(f"ack {self.relative(segment.ack, not path.to_server)}")
        return ", ".join(parts)
