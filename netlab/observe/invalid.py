"""Why conntrack found a packet INVALID, in the kernel's own words: its log lines, read through NFLOG.

While this observer is open, the namespace's `nf_conntrack_log_invalid` and its logger are switched on; both are the
namespace's own, and get their former values back.
"""

from __future__ import annotations

import errno
import socket
import time

from netlab.errors import LabError, UnsupportedError
from netlab.linux import netdevice, nflog
from netlab.observe import Namespaces
from netlab.observe.sysctl import ChangedSysctls
from netlab.record.events import InvalidReason
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import IPPROTO_TCP, decode_ip

_COPY_BYTES = 128
_RECEIVE_BUFFER_BYTES = 1 << 20
_LOG_INVALID = "net/netfilter/nf_conntrack_log_invalid"
_NO_REASONS = "this kernel can't tell why a packet is INVALID"
_PREFIX = f"nf_ct_proto_{IPPROTO_TCP}: "


class InvalidObserver:
    """Conntrack's reasons about TCP packets of the address families (AF_INET, AF_INET6) in one namespace.

    UnsupportedError, naming what is missing, where this kernel can't; LabError where something else in the namespace
    reads the same NFLOG group already.
    """

    def __init__(self, namespaces: Namespaces, netns: str, *families: int) -> None:
        self.id = ObserverId(ObserverKind.REASONS, netns)
        self._netns = netns
        self._next_seq: int | None = None
        self._lost = 0
        self._sysctls = ChangedSysctls(namespaces, netns)
        self._socket = self._listen(namespaces)
        try:
            self._socket.setblocking(False)
            with namespaces.inside(netns):
                self._ifnames = netdevice.ifnames()
            # The logger second: it can only be named once its module is there, which the binding has loaded.
            for family in families:
                self._sysctls.set(f"net/netfilter/nf_log/{int(family)}", "nfnetlink_log", _NO_REASONS)
            self._sysctls.set(_LOG_INVALID, str(IPPROTO_TCP), _NO_REASONS)
        except BaseException:
            self.close()
            raise

    def _listen(self, namespaces: Namespaces) -> socket.socket:
        group = nflog.KERNELS_GROUP
        try:
            with namespaces.inside(self._netns):
                return nflog.listen(group, _COPY_BYTES, _RECEIVE_BUFFER_BYTES)
        except PermissionError as error:
            raise LabError(
                f"another program in {self._netns} reads NFLOG group {group} already", "end it, and run this again"
            ) from error
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, str(error.errno))
            raise UnsupportedError(f"this kernel has no NFLOG (nfnetlink_log): {name}") from error

    def fileno(self) -> int:
        """The descriptor that is readable when reasons wait."""
        return self._socket.fileno()

    def read(self) -> list[InvalidReason]:
        """The reasons that wait, in the order conntrack gave them."""
        reasons: list[InvalidReason] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return reasons
            except OSError as error:
                # What did not fit shows as a gap in the messages' sequence numbers.
                if error.errno == errno.ENOBUFS:
                    continue
                raise
            for line in nflog.lines(data):
                self._count(line.seq)
                reason = decode_reason(line, self._netns, self._ifnames)
                if reason is not None:
                    reasons.append(reason)

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
        """Stop observing, and put the namespace's sysctls back."""
        self._sysctls.restore()
        self._socket.close()


def decode_reason(line: nflog.Line, netns: str, ifnames: dict[int, str]) -> InvalidReason | None:
    """The reason in a line of NFLOG; None if it isn't conntrack's, or not about a TCP segment."""
    segment = decode_ip(line.payload)
    if segment is None or not line.prefix.startswith(_PREFIX):
        return None
    time_ns = time.time_ns() if line.time_ns is None else line.time_ns
    words = line.prefix.removeprefix(_PREFIX).strip()
    return InvalidReason(time_ns, netns, ifnames.get(line.indev, ""), words, segment)
