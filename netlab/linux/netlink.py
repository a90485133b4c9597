"""Netlink messages, netfilter's mostly: taking them apart, asking for a dump, subscribing to a multicast group.

What the attributes mean is for those who ask. Sockets belong to the calling thread's network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

NFGENMSG = struct.Struct("!BBH")
NLMSGHDR = struct.Struct("=IHHII")
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 0, 4, 12  # include/uapi/linux/netlink.h
_PROTOCOLS = {NETLINK_ROUTE: "rtnetlink", NETLINK_SOCK_DIAG: "sock_diag", NETLINK_NETFILTER: "netfilter"}
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NLMSG_ERROR, _NLMSG_DONE, _NLM_F_DUMP_INTR = 2, 3, 0x10
_NLATTR, _NLA_TYPE_MASK = struct.Struct("=HH"), 0x3FFF
# include/uapi/asm-generic/socket.h; sock_diag.h: SK_MEMINFO_DROPS is the last of nine counters.
_SO_RCVBUFFORCE, _SO_MEMINFO, _MEMINFO = 33, 55, struct.Struct("=9I")

RECEIVE_BUFFER_BYTES = 16 << 20
"""Asked for; who is root only in a user namespace gets no more than twice net.core.rmem_max."""


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each netlink message in what one recv brought."""
    at = 0
    while at + NLMSGHDR.size <= len(data):
        length, message_type, flags, *_ = NLMSGHDR.unpack_from(data, at)
        if length < NLMSGHDR.size:
            return
        yield message_type, flags, data[at + NLMSGHDR.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes by their type; nested ones are taken apart by calling this again."""
    found, at = {}, 0
    while at + _NLATTR.size <= len(data):
        length, kind = _NLATTR.unpack_from(data, at)
        if length < _NLATTR.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[at + _NLATTR.size : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _NLATTR.pack(_NLATTR.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def netfilter_socket(receive_buffer_bytes: int) -> socket.socket:
    """A bound NETLINK_NETFILTER socket with a receive buffer as large as this user may have; OSError."""
    return netlink_socket(NETLINK_NETFILTER, receive_buffer_bytes)


def netlink_socket(protocol: int, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> socket.socket:
    """A bound netlink socket of a protocol with a receive buffer as large as this user may have; OSError."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    except OSError as error:
        error.filename = _PROTOCOLS[protocol]
        raise
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    with suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_bytes)
    sock.bind((0, 0))
    return sock


def dump(message_type: int) -> list[bytes]:
    """The bodies, after the nfgenmsg, of all that a GET request of the type finds; OSError where it is refused."""
    with netfilter_socket(RECEIVE_BUFFER_BYTES) as sock:
        found = dumped(sock, message_type, NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))
    return [body[NFGENMSG.size :] for body in found]


def dumped(sock: socket.socket, message_type: int, body: bytes) -> list[bytes]:
    """The bodies of all that a GET request of the type, with that body, finds.

    OSError where it is refused; InterruptedError where it changed meanwhile: then it is to be asked for again.
    """
    header = NLMSGHDR.pack(NLMSGHDR.size + len(body), message_type, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    sock.send(header + body)
    found: list[bytes] = []
    interrupted = False
    while True:
        for kind, flags, content in messages(sock.recv(1 << 17)):
            interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                code = int.from_bytes(content[:4], sys.byteorder, signed=True)  # a dump that fails midway ends in DONE
                if code or kind == _NLMSG_ERROR:
                    raise OSError(-code, os.strerror(-code))
                if interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return found
            found.append(content)


class Subscription:
    """The messages of some multicast groups, netfilter's (enum nfnetlink_groups) unless another protocol is named.

    OSError where the kernel doesn't have one of the groups. The kernel counts what found the buffer full.
    """

    def __init__(
        self, groups: Iterable[int], receive_buffer_bytes: int | None = None, protocol: int = NETLINK_NETFILTER
    ) -> None:
        self._dropped = 0
        self._socket = netlink_socket(protocol, receive_buffer_bytes or RECEIVE_BUFFER_BYTES)
        try:
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            error.filename = f"{_PROTOCOLS[protocol]} group {group}"
            raise

    def fileno(self) -> int:
        """The descriptor that is readable when messages wait."""
        return self._socket.fileno()

    def read(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and body of each message that waits."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # told once, however many were dropped: the kernel's count says it
                    continue
                raise
            yield from messages(data)

    def lost(self) -> int:
        """How many messages found the buffer full since this was last asked: the socket's drop counter."""
        *_, dropped = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
        new, self._dropped = (dropped - self._dropped) & 0xFFFFFFFF, dropped
        return int(new)

    def close(self) -> None:
        """Leave the groups."""
        self._socket.close()
