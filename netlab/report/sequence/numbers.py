"""One connection's sequence numbers and windows as the diagram counts them: from its SYNs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from netlab.analysis.paths import PacketPath
from netlab.record.events import SYN, Segment


class Numbers:
    """Counts from the SYNs among a connection's packets: there are several where a port was used again."""

    def __init__(self, paths: Iterable[PacketPath]) -> None:
        self._syns: dict[bool, list[Segment]] = {True: [], False: []}
        for path in paths:
            if path.segment.flags & SYN:
                self._syns[path.to_server].append(path.segment)

    @property
    def server_isn(self) -> int | None:
        """The server's first sequence number, None where its SYN was not seen."""
        return self._syns[False][0].seq if self._syns[False] else None

    def seq(self, path: PacketPath) -> int:
        """The packet's sequence number, relative to its sender's SYN."""
        return _relative(path.segment.seq, self._syns[path.to_server])

    def ack(self, path: PacketPath) -> int:
        """The packet's acknowledgement, relative to its receiver's SYN."""
        return _relative(path.segment.ack, self._syns[not path.to_server])

    def window_bytes(self, segment: Segment) -> int:
        """The window that one of the client's packets offers."""
        return segment.window << self._shift(segment)

    def _shift(self, segment: Segment) -> int:
        """How far the client's window is shifted: not in a SYN, and only where both ends have the option."""
        client, server = self._syns[True], self._syns[False]
        if segment.flags & SYN or not client or not server or server[0].wscale is None:
            return 0
        return client[0].wscale or 0

    def reason(self, text: str, path: PacketPath) -> str:
        """The kernel's reason, the bound that it names also as numbers are counted here."""
        bound = re.search(r"bound (\d+)", text)
        own_is_client = path.to_server != (text.startswith("ACK") or "ignored ACK" in text)
        syns = self._syns[own_is_client]
        if bound is None or not syns:
            return text
        relative = _relative(int(bound[1]), syns)
        return f"{text[: bound.end()]} [relative {relative}]{text[bound.end() :]}"


def _relative(number: int, syns: Sequence[Segment]) -> int:
    """A sequence number counted from the SYN before it; itself where none was seen."""
    return min(((number - syn.seq) & 0xFFFFFFFF for syn in syns), default=number)
