"""Why conntrack found a packet INVALID, in the kernel's own words: its log lines, read through NFLOG.

While this observer is open, the namespace's `nf_conntrack_log_invalid` and its logger are switched on; both are the
namespace's own, and get their former values back.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from netlab.errors import LabError, UnsupportedError
from netlab.events import InvalidReason
from netlab.observe import Namespaces
from netlab.wire import IPPROTO_TCP, decode_ip

_NETLINK_NETFILTER = 12
# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h
_NFNL_SUBSYS_ULOG = 4
_NFULNL_MSG_PACKET, _NFULNL_MSG_CONFIG = 0, 1
_NFULA_CFG_CMD, _NFULA_CFG_MODE, _NFULA_CFG_QTHRESH, _NFULA_CFG_FLAGS = 1, 2, 5, 6
_NFULNL_CFG_CMD_BIND, _NFULNL_COPY_PACKET, _NFULNL_CFG_F_SEQ = 1, 2, 1
_NFULA_TIMESTAMP, _NFULA_IFINDEX_INDEV, _NFULA_PAYLOAD, _NFULA_PREFIX, _NFULA_SEQ = 3, 4, 9, 10, 12
_NLA_TYPE_MASK = 0x3FFF
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_NLMSGHDR, _NFGENMSG, _NLATTR = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")

_GROUP = 0
"""The NFLOG group that the kernel's own log lines go to (default_loginfo in net/netfilter/nfnetlink_log.c)."""

_COPY_BYTES = 128
_RECEIVE_BUFFER_BYTES = 1 << 20
_LOG_INVALID = "net/netfilter/nf_conntrack_log_invalid"
_PREFIX = f"nf_ct_proto_{IPPROTO_TCP}: "


class InvalidObserver:
    """Conntrack's reasons about TCP packets of one address family (AF_INET or AF_INET6) in one namespace.

    UnsupportedError, naming what is missing, where this kernel can't; LabError where something else in the namespace
    reads the same NFLOG group already.
    """

    def __init__(self, namespaces: Namespaces, netns: str, family: int) -> None:
        self.name = f"conntrack's reasons on {netns}"
        self._namespaces, self._netns = namespaces, netns
        self._next_seq: int | None = None
        self._lost = 0
        self._changed: list[tuple[str, str]] = []
        try:
            self._socket = namespaces.socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as error:
            raise UnsupportedError(f"this kernel has no NETLINK_NETFILTER: {error.strerror}") from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._bind_group(family)
            self._socket.setblocking(False)
            with namespaces.inside(netns):
                self._ifnames = dict(socket.if_nameindex())
            # The logger second: it can only be named once its module is there, which the binding has loaded.
            self._set(f"net/netfilter/nf_log/{int(family)}", "nfnetlink_log")
            self._set(_LOG_INVALID, str(IPPROTO_TCP))
        except BaseException:
            self.close()
            raise

    def _bind_group(self, family: int) -> None:
        attributes = (
            _attribute(_NFULA_CFG_CMD, bytes([_NFULNL_CFG_CMD_BIND])),
            _attribute(_NFULA_CFG_MODE, struct.pack("!IBx", _COPY_BYTES, _NFULNL_COPY_PACKET)),
            _attribute(_NFULA_CFG_QTHRESH, struct.pack("!I", 1)),  # tell at once, don't gather
            _attribute(_NFULA_CFG_FLAGS, struct.pack("!H", _NFULNL_CFG_F_SEQ)),
        )
        body = _NFGENMSG.pack(family, 0, _GROUP) + b"".join(attributes)
        message_type = _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_CONFIG
        header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), message_type, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        self._socket.send(header + body)
        (code,) = struct.unpack_from("=i", self._socket.recv(4096), _NLMSGHDR.size)
        # EPERM is what a group that belongs to another socket answers (nfulnl_recv_config in nfnetlink_log.c).
        if code == -errno.EPERM:
            raise LabError(
                f"another program in {self._netns} reads NFLOG group {_GROUP} already", "end it, and run this again"
            )
        if code:
            raise UnsupportedError(f"this kernel has no NFLOG (nfnetlink_log): {errno.errorcode.get(-code, code)}")

    def _set(self, key: str, value: str) -> None:
        """Write a sysctl of the namespace. Equivalent to `ip netns exec NETNS sysctl -w KEY=VALUE`."""
        name = key.replace("/", ".")
        path = Path("/proc/sys") / key
        with self._namespaces.inside(self._netns):
            try:
                former = path.read_text().strip()
                path.write_text(value)
            except OSError as error:
                raise UnsupportedError(
                    f"this kernel can't tell why a packet is INVALID: {name}: {error.strerror}"
                ) from (error)
        self._changed.append((key, former))

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
            for message_type, body in _messages(data):
                if message_type == _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_PACKET:
                    attributes = dict(_attributes(body[_NFGENMSG.size :]))
                    self._count(attributes.get(_NFULA_SEQ))
                    reason = decode_reason(attributes, self._netns, self._ifnames)
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
        """Stop observing, and put the namespace's sysctls back, the last one changed first."""
        while self._changed:
            key, former = self._changed.pop()
            with self._namespaces.inside(self._netns):
                (Path("/proc/sys") / key).write_text(former)
        self._socket.close()


def decode_reason(attributes: dict[int, bytes], netns: str, ifnames: dict[int, str]) -> InvalidReason | None:
    """The reason in an NFULNL_MSG_PACKET's attributes; None if it isn't conntrack's, or not about a TCP segment."""
    prefix = attributes.get(_NFULA_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    segment = decode_ip(attributes.get(_NFULA_PAYLOAD, b""))
    if segment is None or not prefix.startswith(_PREFIX):
        return None
    time_ns = time.time_ns()
    if _NFULA_TIMESTAMP in attributes:
        sec, usec = struct.unpack("!QQ", attributes[_NFULA_TIMESTAMP])
        time_ns = sec * 1_000_000_000 + usec * 1_000
    ifname = ""
    if _NFULA_IFINDEX_INDEV in attributes:
        (ifindex,) = struct.unpack("!I", attributes[_NFULA_IFINDEX_INDEV])
        ifname = ifnames.get(ifindex, "")
    return InvalidReason(time_ns, netns, ifname, prefix.removeprefix(_PREFIX).strip(), segment)


def _attribute(kind: int, value: bytes) -> bytes:
    return _NLATTR.pack(_NLATTR.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _NLMSGHDR.size <= len(data):
        length, message_type, *_ = _NLMSGHDR.unpack_from(data, at)
        if length < _NLMSGHDR.size:
            return
        yield message_type, data[at + _NLMSGHDR.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _NLATTR.size <= len(data):
        length, kind = _NLATTR.unpack_from(data, at)
        if length < _NLATTR.size:
            return
        yield kind & _NLA_TYPE_MASK, data[at + _NLATTR.size : at + length]
        at += (length + 3) & ~3
