"""Offloads of an interface, by ethtool's ioctl: rtnetlink doesn't know them. In the calling thread's namespace."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

# include/uapi/linux/sockios.h, ethtool.h; struct ethtool_value: cmd, data.
_SIOCETHTOOL = 0x8946
_ETHTOOL_GLINK, _ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x0A, 0x16, 0x17
_VALUE = struct.Struct("=II")


def computes_checksums(ifname: str) -> bool:
    """Whether the interface, not the host, fills in checksums: `ethtool -k IFNAME`, tx-checksumming. OSError.

    On a veth nobody does: a packet that stays on the host has none, and is taken for right.
    """
    return bool(_ioctl(ifname, _ETHTOOL_GTXCSUM, 0))


def set_computes_checksums(ifname: str, on: bool) -> None:
    """Equivalent to `ethtool -K IFNAME tx on|off`; OSError."""
    _ioctl(ifname, _ETHTOOL_STXCSUM, int(on))


def has_link(ifname: str) -> bool:
    """Whether the interface has carrier: `ethtool IFNAME`, Link detected. OSError.

    The kernel tells what is to be told of a change of carrier first (linkwatch_sync_dev in ethtool_op_get_link).
    """
    return bool(_ioctl(ifname, _ETHTOOL_GLINK, 0))


def _ioctl(ifname: str, command: int, data: int) -> int:
    value = ctypes.create_string_buffer(_VALUE.pack(command, data))
    request = struct.pack("16sP", ifname.encode(errors="surrogateescape"), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return int(_VALUE.unpack(value.raw[: _VALUE.size])[1])
