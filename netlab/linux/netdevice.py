"""An interface's attributes by netdevice(7)'s ioctls, in the calling thread's namespace."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFMTU = 0x8921  # include/uapi/linux/sockios.h
_IFREQ = struct.Struct("16si20x")


def mtu(ifname: str) -> int:
    """The MTU in bytes; OSError. Equivalent to `ip link show IFNAME`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        told = fcntl.ioctl(sock, _SIOCGIFMTU, _IFREQ.pack(ifname.encode(), 0))
    return int(_IFREQ.unpack(told)[1])
