"""Interfaces by netdevice(7)'s ioctls and if_nameindex(3), in the calling thread's namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFMTU = 0x8921  # include/uapi/linux/sockios.h
_IFREQ = struct.Struct("16si20x")


def mtu(ifname: str) -> int:
    """The MTU in bytes; OSError. Equivalent to `ip link show IFNAME`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        told = fcntl.ioctl(sock, _SIOCGIFMTU, _IFREQ.pack(ifname.encode(errors="surrogateescape"), 0))
    return int(_IFREQ.unpack(told)[1])


def ifnames() -> dict[int, str]:
    """The names of the interfaces by their ifindexes, to be told: a byte that is no UTF-8 is spelt `\\xff`."""
    return {index: os.fsencode(name).decode(errors="backslashreplace") for index, name in socket.if_nameindex()}
