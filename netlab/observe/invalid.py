"""Why conntrack found a packet INVALID, in the kernel's own words: its log lines, read through NFLOG.

While this observer is open, the namespace's `nf_conntrack_log_invalid` and its logger are switched on; both are the
namespace's own, and get their former values back.
"""

from __future__ import annotations

import errno
import socket
import struct
import time

from netlab.errors import LabError, UnsupportedError
from netlab.linux.netlink import (
    NFGENMSG,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSGHDR,
    attribute,
    attributes,
    messages,
    netfilter_socket,
)
from netlab.observe import Namespaces
from netlab.observe.sysctl import ChangedSysctls
from netlab.record.events import InvalidReason
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import IPPROTO_TCP, decode_ip

# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h
_NFNL_SUBSYS_ULOG = 4
_NFULNL_MSG_PACKET, _NFULNL_MSG_CONFIG = 0, 1
_NFULA_CFG_CMD, _NFULA_CFG_MODE, _NFULA_CFG_QTHRESH, _NFULA_CFG_FLAGS = 1, 2, 5, 6
_NFULNL_CFG_CMD_BIND, _NFULNL_COPY_PACKET, _NFULNL_CFG_F_SEQ = 1, 2, 1
_NFULA_TIMESTAMP, _NFULA_IFINDEX_INDEV, _NFULA_PAYLOAD, _NFULA_PREFIX, _NFULA_SEQ = 3, 4, 9, 10, 12

_GROUP = 0
"""The NFLOG group that the kernel's own log lines go to (default_loginfo in net/netfilter/nfnetlink_log.c)."""

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
        self._socket = netfilter_socket(namespaces, netns, _RECEIVE_BUFFER_BYTES)
        try:
            self._bind_group()
            self._socket.setblocking(False)
            with namespaces.inside(netns):
                self._ifnames = dict(socket.if_nameindex())
            # The logger second: it can only be named once its module is there, which the binding has loaded.
            for family in families:
                self._sysctls.set(f"net/netfilter/nf_log/{int(family)}", "nfnetlink_log", _NO_REASONS)
            self._sysctls.set(_LOG_INVALID, str(IPPROTO_TCP), _NO_REASONS)
        except BaseException:
            self.close()
            raise

    def _bind_group(self) -> None:
        config = (
            attribute(_NFULA_CFG_CMD, bytes([_NFULNL_CFG_CMD_BIND])),
            attribute(_NFULA_CFG_MODE, struct.pack("!IBx", _COPY_BYTES, _NFULNL_COPY_PACKET)),
            attribute(_NFULA_CFG_QTHRESH, struct.pack("!I", 1)),  # tell at once, don't gather
            attribute(_NFULA_CFG_FLAGS, struct.pack("!H", _NFULNL_CFG_F_SEQ)),
        )
        body = NFGENMSG.pack(socket.AF_UNSPEC, 0, _GROUP) + b"".join(config)
        message_type = _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_CONFIG
        header = NLMSGHDR.pack(NLMSGHDR.size + len(body), message_type, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.send(header + body)
        (code,) = struct.unpack_from("=i", self._socket.recv(4096), NLMSGHDR.size)
        # EPERM is what a group that belongs to another socket answers (nfulnl_recv_config in nfnetlink_log.c).
        if code == -errno.EPERM:
            raise LabError(
                f"another program in {self._netns} reads NFLOG group {_GROUP} already", "end it, and run this again"
            )
        if code:
            raise UnsupportedError(f"this kernel has no NFLOG (nfnetlink_log): {errno.errorcode.get(-code, code)}")

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
            for message_type, _, body in messages(data):
                if message_type == _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_PACKET:
                    told = attributes(body[NFGENMSG.size :])
                    self._count(told.get(_NFULA_SEQ))
                    reason = decode_reason(told, self._netns, self._ifnames)
                    if reason is not None:
                        reasons.append(reason)

    def _count(self, seq: bytes | None) -> None:
        if seq is None:
            return
        (number,) = struct.unpack("!I", seq)
        if self._next_seq is not None:
            self._lost += (number - self._next_seq) & 0xFFFFFFFF
        self._next_seq = (number + 1) & 0xFFFFFFFF

    def lost(self) -> int:
        """How many reasons never came since this was last asked, by the gaps in their sequence numbers."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Stop observing, and put the namespace's sysctls back."""
        self._sysctls.restore()
        self._socket.close()


def decode_reason(told: dict[int, bytes], netns: str, ifnames: dict[int, str]) -> InvalidReason | None:
    """The reason in an NFULNL_MSG_PACKET's attributes; None if it isn't conntrack's, or not about a TCP segment."""
    prefix = told.get(_NFULA_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    segment = decode_ip(told.get(_NFULA_PAYLOAD, b""))
    if segment is None or not prefix.startswith(_PREFIX):
        return None
    time_ns = time.time_ns()
    if _NFULA_TIMESTAMP in told:
        sec, usec = struct.unpack("!QQ", told[_NFULA_TIMESTAMP])
        time_ns = sec * 1_000_000_000 + usec * 1_000
    ifname = ""
    if _NFULA_IFINDEX_INDEV in told:
        (ifindex,) = struct.unpack("!I", told[_NFULA_IFINDEX_INDEV])
        ifname = ifnames.get(ifindex, "")
    return InvalidReason(time_ns, netns, ifname, prefix.removeprefix(_PREFIX).strip(), segment)
