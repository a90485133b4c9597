"""Why conntrack found a packet INVALID, in the kernel's own words: its log lines, read through NFLOG.

While one of these observers is open, the namespace's `nf_conntrack_log_invalid` and its logger are switched on; both
are the namespace's own, and get their former values back. The kernel has one reader of the lines in a namespace: it is
the namespace's keeper (`keeper.py`), and all who observe get them from it.
"""

from __future__ import annotations

import time

from netlab.linux import netdevice, nflog
from netlab.observe import Namespaces
from netlab.observe.keeper import Share
from netlab.record.events import InvalidReason
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import IPPROTO_TCP, decode_ip

_PREFIX = f"nf_ct_proto_{IPPROTO_TCP}: "


class InvalidObserver:
    """Conntrack's reasons about TCP packets of the address families (AF_INET, AF_INET6) in one namespace.

    UnsupportedError, naming what is missing, where this kernel can't; LabError where another program than netlab reads
    the same NFLOG group there.
    """

    def __init__(self, namespaces: Namespaces, netns: str, *families: int) -> None:
        self.id = ObserverId(ObserverKind.REASONS, netns)
        self._netns = netns
        self._next_seq: int | None = None
        self._lost = 0
        with namespaces.inside(netns):
            self._ifnames = netdevice.ifnames()
        self._share = Share(namespaces, netns, "reasons", families=[int(family) for family in families])

    def fileno(self) -> int:
        """The descriptor that is readable when reasons wait."""
        return self._share.fileno()

    def read(self) -> list[InvalidReason]:
        """The reasons that wait, in the order conntrack gave them."""
        reasons: list[InvalidReason] = []
        for data in self._share.read():
            for line in nflog.lines(data):
                self._count(line.seq)
                reason = decode_reason(line, self._netns, self._ifnames)
                if reason is not None:
                    reasons.append(reason)
        return reasons

    def _count(self, seq: int | None) -> None:
        if seq is None:
            return
        if self._next_seq is not None:
            self._lost += (seq - self._next_seq) & 0xFFFFFFFF
        self._next_seq = (seq + 1) & 0xFFFFFFFF

    def lost(self) -> int:
        """How many reasons never came since this was last asked, by the gaps in their sequence numbers."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Stop observing; with the last of these observers, the namespace's sysctls are what they were."""
        self._share.close()


def decode_reason(line: nflog.Line, netns: str, ifnames: dict[int, str]) -> InvalidReason | None:
    """The reason in a line of NFLOG; None if it isn't conntrack's, or not about a TCP segment."""
    segment = decode_ip(line.payload)
    if segment is None or not line.prefix.startswith(_PREFIX):
        return None
    time_ns = time.time_ns() if line.time_ns is None else line.time_ns
    words = line.prefix.removeprefix(_PREFIX).strip()
    return InvalidReason(time_ns, netns, ifnames.get(line.indev, ""), words, segment)
