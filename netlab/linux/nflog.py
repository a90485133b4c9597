"""NFLOG: what netfilter's loggers tell user space, each time with the first bytes of a packet (nfnetlink_log)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

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

# include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h
_NFNL_SUBSYS_ULOG = 4
_NFULNL_MSG_PACKET, _NFULNL_MSG_CONFIG = 0, 1
_NFULA_CFG_CMD, _NFULA_CFG_MODE, _NFULA_CFG_QTHRESH, _NFULA_CFG_FLAGS = 1, 2, 5, 6
_NFULNL_CFG_CMD_BIND, _NFULNL_COPY_PACKET, _NFULNL_CFG_F_SEQ = 1, 2, 1
_NFULA_TIMESTAMP, _NFULA_IFINDEX_INDEV, _NFULA_PAYLOAD, _NFULA_PREFIX, _NFULA_SEQ = 3, 4, 9, 10, 12

KERNELS_GROUP = 0
"""The group that the kernel's own log lines go to (default_loginfo in net/netfilter/nfnetlink_log.c)."""


class Line(NamedTuple):
    """One message. payload is the packet from its IP header on, cut off; indev the ifindex it came in by, 0: none.

    time_ns is on CLOCK_REALTIME, None where the kernel gave no stamp; seq counts the group's messages, None likewise.
    """

    prefix: str
    payload: bytes
    indev: int
    time_ns: int | None
    seq: int | None


def listen(group: int, copy_bytes: int, receive_buffer_bytes: int) -> socket.socket:
    """A socket of the calling thread's network namespace that gets the group's messages, numbered and at once.

    OSError: EPERM where another socket has the group (nfulnl_recv_config in net/netfilter/nfnetlink_log.c).
    """
    sock = netfilter_socket(receive_buffer_bytes)
    try:
        config = (
            attribute(_NFULA_CFG_CMD, bytes([_NFULNL_CFG_CMD_BIND])),
            attribute(_NFULA_CFG_MODE, struct.pack("!IBx", copy_bytes, _NFULNL_COPY_PACKET)),
            attribute(_NFULA_CFG_QTHRESH, struct.pack("!I", 1)),  # tell at once, don't gather
            attribute(_NFULA_CFG_FLAGS, struct.pack("!H", _NFULNL_CFG_F_SEQ)),
        )
        body = NFGENMSG.pack(socket.AF_UNSPEC, 0, group) + b"".join(config)
        message_type = _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_CONFIG
        sock.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), message_type, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        (code,) = struct.unpack_from("=i", sock.recv(4096), NLMSGHDR.size)
        if code:
            raise OSError(-code, os.strerror(-code), f"NFLOG group {group}")
    except BaseException:
        sock.close()
        raise
    return sock


def lines(data: bytes) -> Iterator[Line]:
    """The messages in what one recv brought."""
    for message_type, _, body in messages(data):
        if message_type == _NFNL_SUBSYS_ULOG << 8 | _NFULNL_MSG_PACKET:
            yield line(attributes(body[NFGENMSG.size :]))


def line(told: dict[int, bytes]) -> Line:
    """A message by its attributes."""
    time_ns = None
    if _NFULA_TIMESTAMP in told:
        sec, usec = struct.unpack("!QQ", told[_NFULA_TIMESTAMP])
        time_ns = sec * 1_000_000_000 + usec * 1_000
    return Line(
        prefix=told.get(_NFULA_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        payload=told.get(_NFULA_PAYLOAD, b""),
        indev=int.from_bytes(told.get(_NFULA_IFINDEX_INDEV, b""), "big"),
        time_ns=time_ns,
        seq=int.from_bytes(told[_NFULA_SEQ], "big") if _NFULA_SEQ in told else None,
    )
