"""Sockets at both ends of a connection: what the kernel says of them, and the moment it said so."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from netlab.errors import unsupported
from netlab.linux.netlink import NETLINK_SOCK_DIAG, Subscription, attributes, dumped, netlink_socket
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.record.events import SocketClosed, SocketEvent, SocketEventKind, SocketSample
from netlab.record.observers import ObserverId, ObserverKind

_TCP_INFO_BYTES = 236
# struct tcp_info of include/uapi/linux/tcp.h: where the members stand that are read here.
_STATE, _RETRANSMITS = 0, 2
_SND_MSS, _UNACKED, _TOTAL_RETRANS, _NOTSENT_BYTES, _SND_WND, _RCV_WND = 16, 24, 100, 144, 228, 232
_BYTES_ACKED, _BYTES_RECEIVED, _BYTES_SENT, _BYTES_RETRANS = 120, 128, 200, 208

# include/net/tcp_states.h, counted from 1.
TCP_STATES = (
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)

# include/uapi/linux/sock_diag.h: SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY.
_DESTROY_GROUPS = (1, 3)

# include/uapi/linux/sock_diag.h, inet_diag.h. struct inet_diag_req_v2: family, protocol, extensions, states, and
# a struct inet_diag_sockid (48 bytes); struct inet_diag_msg: family, state, timer, retrans, such a sockid, 5 times u32.
SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_INFO, _ALL_STATES = 2, 0xFFFFFFFF
_DIAG_REQUEST = struct.Struct("=BBBxI48x")
DIAG_MSG_BYTES, DIAG_SPORT_AT, DIAG_SRC_AT, _DIAG_DST_AT = 72, 4, 8, 24


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
    """TCP_INFO of a socket. Equivalent to `ss -ti`. A member that the kernel hasn't reads as 0.

    tcpi_snd_wnd exists since v5.4, tcpi_rcv_wnd since v6.2.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES).ljust(_TCP_INFO_BYTES, b"\0")

    def member(at: int) -> int:
        return int(struct.unpack_from("=I", info, at)[0])

    return TcpInfo(member(_UNACKED), member(_NOTSENT_BYTES), member(_SND_WND), member(_SND_MSS))


def sample(sock: socket.socket, netns: str) -> SocketSample:
    """The socket's TCP_INFO now, as an event."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    host, port, *_ = sock.getsockname()
    return _sample(info, netns, ip_address(host), int(port))


def samples(namespaces: Namespaces, netns: str, ports: Collection[int]) -> list[SocketSample]:
    """TCP_INFO of every TCP socket of the namespace whose own or whose peer's port is one of `ports`; of all without.

    UnsupportedError without sock_diag. Equivalent to `ip netns exec NETNS ss -tina`.
    """
    found: list[SocketSample] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        found += _diagnosed(namespaces, netns, family, ports)
    return found


def _diagnosed(namespaces: Namespaces, netns: str, family: int, ports: Collection[int]) -> Iterator[SocketSample]:
    request = diag_request(family, socket.IPPROTO_TCP, 1 << _INET_DIAG_INFO - 1)
    no_diag = unsupported("this kernel has no sock_diag for TCP (tcp_diag)")
    with no_diag, namespaces.inside(netns), netlink_socket(NETLINK_SOCK_DIAG) as sock:
        found = dumped(sock, SOCK_DIAG_BY_FAMILY, request)
    for told in found:
        own_port, peer_port = struct.unpack_from("!HH", told, DIAG_SPORT_AT)
        info = attributes(told[DIAG_MSG_BYTES:]).get(_INET_DIAG_INFO)
        if info is not None and (not ports or own_port in ports or peer_port in ports):
            width = 4 if told[0] == socket.AF_INET else 16
            yield _sample(info, netns, ip_address(told[DIAG_SRC_AT : DIAG_SRC_AT + width]), own_port)


class ClosedSocketObserver:
    """The TCP sockets of a namespace that the kernel frees: those with one of `ports`, their own or their peer's; all
    without.

    They are told as long as somebody listens: nothing is changed for it. UnsupportedError where the kernel can't.
    Equivalent to `ip netns exec NETNS ss -E -t`.
    """

    def __init__(
        self, namespaces: Namespaces, netns: str, ports: Collection[int], receive_buffer_bytes: int | None = None
    ) -> None:
        self.id = ObserverId(ObserverKind.CLOSED_SOCKETS, netns)
        self._netns, self._ports = netns, frozenset(ports)
        with unsupported("this kernel can't tell of sockets that it frees"), namespaces.inside(netns):
            self._subscription = Subscription(_DESTROY_GROUPS, receive_buffer_bytes, NETLINK_SOCK_DIAG)

    def fileno(self) -> int:
        """The descriptor that is readable when sockets wait."""
        return self._subscription.fileno()

    def read(self) -> list[SocketClosed]:
        """The sockets that wait, in the order they were freed."""
        found = []
        for kind, _, body in self._subscription.read():
            closed = decode_closed(body, self._netns) if kind == SOCK_DIAG_BY_FAMILY else None
            if closed and (not self._ports or {closed.local_port, closed.peer_port} & self._ports):
                found.append(closed)
        return found

    def lost(self) -> int:
        """How many sockets found the buffer full since this was last asked."""
        return self._subscription.lost()

    def close(self) -> None:
        """Stop observing."""
        self._subscription.close()


def decode_closed(body: bytes, netns: str) -> SocketClosed | None:
    """A socket that was freed, from a struct inet_diag_msg and its attributes; None without its TCP_INFO."""
    info = attributes(body[DIAG_MSG_BYTES:]).get(_INET_DIAG_INFO)
    if info is None:
        return None
    info = info.ljust(_TCP_INFO_BYTES, b"\0")
    width = 4 if body[0] == socket.AF_INET else 16
    own_port, peer_port = struct.unpack_from("!HH", body, DIAG_SPORT_AT)

    def member(at: int, kind: str = "=Q") -> int:
        return int(struct.unpack_from(kind, info, at)[0])

    return SocketClosed(
        time_ns=time.time_ns(),
        netns=netns,
        local=ip_address(body[DIAG_SRC_AT : DIAG_SRC_AT + width]),
        local_port=own_port,
        peer=ip_address(body[_DIAG_DST_AT : _DIAG_DST_AT + width]),
        peer_port=peer_port,
        received_bytes=member(_BYTES_RECEIVED),
        sent_bytes=member(_BYTES_SENT) - member(_BYTES_RETRANS),
        unsent_bytes=member(_NOTSENT_BYTES, "=I"),
        acked_bytes=member(_BYTES_ACKED),
        total_retrans=member(_TOTAL_RETRANS, "=I"),
    )


def diag_request(family: int, proto: int, extensions: int = 0, states: int = _ALL_STATES) -> bytes:
    """The body of a request for the sockets of a family and protocol: struct inet_diag_req_v2.

    extensions are bits of INET_DIAG_*, the first one's bit being 0; states bits of TCP_*.
    """
    return _DIAG_REQUEST.pack(family, proto, extensions, states)


def _sample(info: bytes, netns: str, local: Address, port: int) -> SocketSample:
    info = info.ljust(_TCP_INFO_BYTES, b"\0")

    def member(at: int) -> int:
        return int(struct.unpack_from("=I", info, at)[0])

    return SocketSample(
        time_ns=time.time_ns(),
        netns=netns,
        local=local,
        local_port=port,
        tcp_state=TCP_STATES[info[_STATE] - 1] if 0 < info[_STATE] <= len(TCP_STATES) else str(info[_STATE]),
        snd_wnd_bytes=member(_SND_WND),
        rcv_wnd_bytes=member(_RCV_WND),
        unacked=member(_UNACKED),
        retransmits=info[_RETRANSMITS],
        total_retrans=member(_TOTAL_RETRANS),
        notsent_bytes=member(_NOTSENT_BYTES),
    )


def socket_error(
    sock: socket.socket, netns: str, local_port: int = 0, peer_port: int = 0, connection: str = ""
) -> SocketEvent | None:
    """The error that waits at a socket (SO_ERROR, which reading clears), or None."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error_event(code, netns, local_port, peer_port, connection) if code else None


def why_failed(sock: socket.socket, error: OSError) -> int:
    """The errno of a call on a socket that failed; of one that was reset, the reason that waits at it (SO_ERROR).

    shutdown(2) says ENOTCONN of such a socket, and leaves the reason where it is (inet_shutdown(), net/ipv4/af_inet.c).
    """
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or error.errno or 0


def error_event(code: int, netns: str, local_port: int = 0, peer_port: int = 0, connection: str = "") -> SocketEvent:
    """An errno that a socket call just gave, with the time. A socket that was reset has forgotten its ports."""
    return SocketEvent(
        time.time_ns(),
        netns,
        SocketEventKind.ERROR,
        errno=code,
        local_port=local_port,
        peer_port=peer_port,
        connection=connection,
    )
