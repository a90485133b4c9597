"""RSTs that the kernel's TCP sends, with its own reason, and those that a socket accepts: tcp:tcp_send_reset and
tcp:tcp_receive_reset.

Neither can be seen on the wire: a RST shows there whoever made it, and whether its receiver takes it depends on the
receiver's numbers. One that a rule makes is not among them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from ipaddress import ip_address

from netlab.linux import bpf
from netlab.linux.bpf import FP, R0, R1, R6, R7, R8, R9, Instruction
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.observe.sockets import TCP_STATES
from netlab.observe.tracepoints import (
    WORD_AT,
    Layout,
    Programs,
    deliver,
    described,
    headers,
    inodes,
    one_of,
    read,
    realtime_ahead_ns,
    word,
)
from netlab.record.events import ResetKind, TcpReset, Tuple
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.wire import IPPROTO_TCP, decode_ip

BUFFER_BYTES = 1 << 18
"""Room for some 900 resets that wait to be read."""

_SOCK_BYTES, _HEADER_BYTES = 136, 96
_RECORD = struct.Struct(f"=QIIII2s6x{_SOCK_BYTES}s{_HEADER_BYTES}s")
"""What a program brings: the time, the namespace's inode, the reason, whether the RST is accepted, RCV.NXT, the
socket's port as it was bound, its struct sock_common, the headers of the packet that is answered."""
_RECORD_AT = WORD_AT - _RECORD.size
_TIME_AT, _NETNS_AT, _REASON_AT, _ACCEPTED_AT, _RCV_NXT_AT, _SPORT_AT, _SOCK_AT, _HEADERS_AT = (
    _RECORD_AT + offset for offset in (0, 8, 12, 16, 20, 24, 32, 32 + _SOCK_BYTES)
)


class ResetObserver:
    """The RSTs that TCP sends or accepts in some namespaces, on connections with one of `ports`; on any without.

    UnsupportedError where the kernel has no BTF, or where this user may not load the programs. Reasons are told since
    Linux kernel commit b533fb9cf4f7 ("rstreason: make it work in trace world") (in v6.10).
    """

    def __init__(
        self, namespaces: Namespaces, names: Sequence[str], ports: Collection[int], buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.id = ObserverId(ObserverKind.RESETS, "")
        self._ports, self._netns = frozenset(ports), inodes(namespaces, names)
        self._layout, _, self._reasons = described()
        with Programs.opened(buffer_bytes) as self._programs:
            self._programs.attach(
                "tcp_send_reset",
                lambda *maps: sending(self._layout, self._netns, *maps, reason_told=bool(self._reasons)),
            )
            self._programs.attach("tcp_receive_reset", lambda *maps: accepting(self._layout, self._netns, *maps))

    def fileno(self) -> int:
        """The descriptor that is readable when resets wait."""
        return self._programs.fileno()

    def read(self) -> list[TcpReset]:
        """The resets that wait, in the order they were noted."""
        ahead_ns = realtime_ahead_ns()
        resets = (self._decoded(record, ahead_ns) for record in self._programs.read())
        return [reset for reset in resets if not self._ports or _ports(reset) & self._ports]

    def _decoded(self, record: bytes, ahead_ns: int) -> TcpReset:
        time_ns, inode, number, accepted, rcv_nxt, sport, sock, packet = _RECORD.unpack(record)
        reason = "" if accepted or not self._reasons else self._reasons.get(number, str(number))
        its_socket, tcp_state = decode_sock(sock, sport, self._layout) if any(sock) else (None, "")
        return TcpReset(
            time_ns=time_ns + ahead_ns,
            netns=self._netns[inode],
            kind=ResetKind.ACCEPTED if accepted else ResetKind.SENT,
            reason=reason,
            socket=its_socket,
            tcp_state=tcp_state,
            answered=decode_ip(packet),
            rcv_nxt=rcv_nxt if accepted and tcp_state != "SYN_SENT" else None,
        )

    def lost(self) -> int:
        """How many resets found the buffer full since this was last asked; whatever their ports were."""
        return self._programs.lost()

    def close(self) -> None:
        """Stop observing."""
        self._programs.close()


def _ports(reset: TcpReset) -> set[int]:
    ends = [end for end in (reset.socket, reset.answered) if end is not None]
    return {port for end in ends for port in (end.sport, end.dport)}


def decode_sock(sock: bytes, sport: bytes, layout: Layout) -> tuple[Tuple, str]:
    """A socket's own end and its peer's, and its state, from its struct sock_common.

    sport is inet_sport, which a socket keeps that was closed and has given its port back (skc_num).
    """
    (family,) = struct.unpack_from("=H", sock, layout.sock_family)
    (number,) = struct.unpack_from("=H", sock, layout.sock_num)
    own_port = number or int.from_bytes(sport, "big")
    (peer_port,) = struct.unpack_from("!H", sock, layout.sock_dport)
    own, peer = (
        _address(sock, family, at, at_ipv6)
        for at, at_ipv6 in (
            (layout.sock_rcv_saddr, layout.sock_v6_rcv_saddr),
            (layout.sock_daddr, layout.sock_v6_daddr),
        )
    )
    state = sock[layout.sock_state]
    name = TCP_STATES[state - 1] if 0 < state <= len(TCP_STATES) else str(state)
    return Tuple(own, own_port, peer, peer_port, IPPROTO_TCP), name


def _address(sock: bytes, family: int, at: int, at_ipv6: int) -> Address:
    """One that an IPv6 socket has of IPv4 is told as that."""
    if family == socket.AF_INET:
        return ip_address(sock[at : at + 4])
    found = ip_address(sock[at_ipv6 : at_ipv6 + 16])
    return getattr(found, "ipv4_mapped", None) or found


def sending(layout: Layout, netns: Collection[int], buffer_fd: int, lost_fd: int, *, reason_told: bool) -> bytes:
    """The program at tcp_send_reset, whose arguments are the socket, the packet that is answered, and the reason.

    Either of the first two may be missing: a RST answers a packet that is for no socket, or a close answers none.
    """
    return bpf.assembled(
        [
            bpf.move(R6, R1),
            bpf.load(R9, R6, 0, 8),
            bpf.load(R7, R6, 1 * 8, 8),
            bpf.jump_unless_null(R9, "socket"),
            *word(R8, R7, layout.skb_dev, 8),
            *word(R8, R8, layout.dev_net, 8),
            bpf.jump("namespace"),
            "socket",
            *word(R8, R9, layout.sock_net, 8),
            "namespace",
            *one_of(netns, layout),
            *(bpf.clear(FP, at) for at in range(_RECORD_AT, WORD_AT, 8)),
            bpf.store(FP, _NETNS_AT, R8, 4),
            bpf.call(bpf.KTIME_GET_NS),
            bpf.store(FP, _TIME_AT, R0, 8),
            *([bpf.load(R1, R6, 2 * 8, 8), bpf.store(FP, _REASON_AT, R1, 4)] if reason_told else []),
            *_socket(layout),
            bpf.jump_if_null(R7, "no packet"),
            *headers(_HEADERS_AT, _HEADER_BYTES, R7, layout),
            "no packet",
            *deliver(_RECORD_AT, _RECORD.size, buffer_fd, lost_fd),
        ]
    )


def _socket(layout: Layout) -> Iterator[Instruction]:
    """Read the socket in R9; of none, zeros."""
    yield from read(_SOCK_AT, _SOCK_BYTES, R9, 0)
    yield from read(_SPORT_AT, 2, R9, layout.sock_sport)


def accepting(layout: Layout, netns: Collection[int], buffer_fd: int, lost_fd: int) -> bytes:
    """The program at tcp_receive_reset, whose argument is the socket that a RST is about to end."""
    return bpf.assembled(
        [
            bpf.move(R6, R1),
            bpf.load(R9, R6, 0, 8),
            *word(R8, R9, layout.sock_net, 8),
            *one_of(netns, layout),
            *(bpf.clear(FP, at) for at in range(_RECORD_AT, WORD_AT, 8)),
            bpf.store(FP, _NETNS_AT, R8, 4),
            bpf.call(bpf.KTIME_GET_NS),
            bpf.store(FP, _TIME_AT, R0, 8),
            bpf.put(R1, 1),
            bpf.store(FP, _ACCEPTED_AT, R1, 4),
            *_socket(layout),
            *read(_RCV_NXT_AT, 4, R9, layout.sock_rcv_nxt),
            *deliver(_RECORD_AT, _RECORD.size, buffer_fd, lost_fd),
        ]
    )
