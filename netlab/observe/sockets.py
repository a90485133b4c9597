"""Sockets at both ends of a connection: what the kernel says of them, and the moment it said so."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

from netlab.events import SocketEvent, SocketEventKind

_TCP_INFO_BYTES = 232
# struct tcp_info of include/uapi/linux/tcp.h: where the members stand that are read here.
_SND_MSS, _UNACKED, _NOTSENT_BYTES, _SND_WND = 16, 24, 144, 228


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The part of TCP_INFO that tells how far a sender has come.

    unacked counts segments in flight; notsent_bytes is what waits in the send queue; snd_wnd_bytes is the peer's
    window as this end knows it; snd_mss_bytes the size of a full segment.
    """

    unacked: int
    notsent_bytes: int
    snd_wnd_bytes: int
    snd_mss_bytes: int


def tcp_info(sock: socket.socket) -> TcpInfo:
    """TCP_INFO of a socket. Equivalent to `ss -ti`. tcpi_snd_wnd exists since v5.4; before, it reads as 0."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES).ljust(_TCP_INFO_BYTES, b"\0")

    def member(at: int) -> int:
        return int(struct.unpack_from("=I", info, at)[0])

    return TcpInfo(member(_UNACKED), member(_NOTSENT_BYTES), member(_SND_WND), member(_SND_MSS))


def socket_error(sock: socket.socket, netns: str) -> SocketEvent | None:
    """The error that waits at a socket (SO_ERROR, which reading clears), or None."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error_event(code, netns) if code else None


def error_event(code: int, netns: str) -> SocketEvent:
    """An errno that a socket call just gave, with the time."""
    return SocketEvent(time.time_ns(), netns, SocketEventKind.ERROR, errno=code)
