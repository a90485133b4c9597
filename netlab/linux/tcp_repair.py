"""TCP_REPAIR: what the kernel tells of a socket's state, takes for it, and forgets without a word to the peer.

It was made to move connections between hosts (Linux kernel commit ee9952831cfd ("tcp: Initial repair mode") (in v3.5));
here it stands for what a crash or a race does. It takes CAP_NET_ADMIN over the socket's network namespace.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from netlab.linux.files import naming

# include/uapi/linux/tcp.h
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ, _TCP_REPAIR_WINDOW = 19, 20, 21, 29
_ON, _OFF_WITHOUT_PROBE = 1, -1
_RECEIVE_QUEUE, _SEND_QUEUE = 1, 2
_SEQ, _WINDOW = struct.Struct("=I"), struct.Struct("=5I")


class Window(NamedTuple):
    """struct tcp_repair_window (include/uapi/linux/tcp.h): what a socket believes of its peer's window, and its own."""

    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int


@contextmanager
def repairing(sock: socket.socket) -> Iterator[None]:
    """The socket is in repair mode meanwhile; OSError naming TCP_REPAIR where a socket option is refused."""
    with naming("TCP_REPAIR"):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)
        yield
        # Leaving the repair mode like this sends no window probe of its own.
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _OFF_WITHOUT_PROBE)
        # It also clears SO_REUSEADDR, without which the next trial could not listen while this socket lingers.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def set_initial_number(sock: socket.socket, number: int) -> None:
    """Have a socket that isn't connected yet begin with that sequence number: its SYN's. OSError as `repairing`.

    0 leaves the choice to the kernel (tcp_v4_connect(), net/ipv4/tcp_ipv4.c).
    """
    with repairing(sock):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, _SEND_QUEUE)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ, _SEQ.pack(number))


def forget(sock: socket.socket) -> None:
    """Close a socket without a packet, as a crash of its host does; OSError, and it is closed as usual."""
    with closing(sock), naming("TCP_REPAIR"):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)


def window(sock: socket.socket) -> Window:
    """The windows of a socket that is being repaired; OSError before Linux 4.8."""
    return Window(*_WINDOW.unpack(sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.size)))


def set_window(sock: socket.socket, believed: Window) -> None:
    """Have a socket that is being repaired believe in these windows; OSError for those that make no sense."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.pack(*believed))


def next_numbers(sock: socket.socket) -> tuple[int, int]:
    """The sequence numbers of the next byte to send and of the next one to receive; OSError as `repairing`."""
    found = []
    with repairing(sock):
        for queue in (_SEND_QUEUE, _RECEIVE_QUEUE):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
            found.append(_SEQ.unpack(sock.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ, _SEQ.size))[0])
    return found[0], found[1]
