"""What sockets can be made and told."""

from __future__ import annotations

import socket
import struct

from netlab.capabilities.scratch import TIMEOUT_S, set_loopback_up
from netlab.errors import UnsupportedError
from netlab.linux.deadlines import scaled
from netlab.linux.tcp_repair import repairing, set_window, window

_ETH_P_ALL = 3  # include/uapi/linux/if_ether.h


def raw() -> str:
    """A TCP segment written by hand, and seen by a packet socket on its way."""
    set_loopback_up()
    segment = struct.pack("!HHIIBBHHH", 1, 1, 1, 0, 5 << 4, 0, 0, 0, 0)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as packets,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender,
    ):
        packets.settimeout(scaled(TIMEOUT_S / 2))
        sender.sendto(segment, ("127.0.0.1", 0))
        while not packets.recv(1 << 16).endswith(segment):
            pass
    return "segments can be crafted, and seen"


def tcp_repair() -> str:
    """A connection's send window doubled, and read back. UnsupportedError where it stays as it was."""
    set_loopback_up()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
        repairing(sock),
    ):
        before = window(sock)
        twice = 2 * before.snd_wnd
        wanted = before._replace(snd_wnd=twice, max_window=max(before.max_window, twice))
        set_window(sock, wanted)
        if window(sock) != wanted:
            raise UnsupportedError("a socket's window stays what it was")
    return "a socket's window can be set"
