"""window-overrun: the server's kernel sends past the client's small window.

Claim: a burst past a small receive window makes conntrack find packets INVALID, NAT skips them, and the client's RST
to what it doesn't know kills a healthy connection.

Stimulus, in order:
1. The client connects to the VIP, sends a request, and stops reading.
2. The server writes a burst; as much as the client's window allows leaves, and is acknowledged.
3. The server's socket gets a stale, too large send window (`TCP_REPAIR_WINDOW`) and is pushed (`TCP_NODELAY`): what is
   left of the burst leaves in one go, before any ACK comes back. The packets are the kernel's own.
4. The client reads on, and the server writes the rest of the payload.

Expected: without a fix a reset; with a fix, or with a window that takes the burst, every byte arrives.
"""

from __future__ import annotations

import errno
import socket
import struct
import time

from netlab.errors import UnsupportedError
from netlab.events import Direction, SocketEvent, SocketEventKind
from netlab.experiments.transfer import Transfer
from netlab.flow import FlowEvents, Leg
from netlab.judge import Evidence, Link, Proof
from netlab.observe.sockets import tcp_info
from netlab.observe.watch import Watch
from netlab.window import reach

CLAIM = "a burst past the client's small window makes NAT skip packets, and the connection is reset"

BURST_BYTES = 32 * 1024
"""More than an initial congestion window (10 segments, RFC 6928) sends at once; less than the 64 kB that a client with
Linux's default tcp_rmem allows from the start, so that a large window is a fair control."""

STALE_WINDOW_BYTES = 1 << 20
"""The least the stale window is; it is at least twice the real one."""

_QUIET_TIMEOUT_S = 2.0

# include/uapi/linux/tcp.h; struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
_TCP_REPAIR, _TCP_REPAIR_WINDOW = 19, 29
_TCP_REPAIR_ON, _TCP_REPAIR_OFF_NO_WP = 1, -1
_REPAIR_WINDOW = struct.Struct("=5I")


def stimulate(transfer: Transfer, watch: Watch, server: str) -> str:
    """Steps 2 and 3, on a connection whose client doesn't read; server is the namespace of the server's socket.

    Returns what kept the stimulus from being applied, empty if nothing did. UnsupportedError where the kernel or the
    user can't set a socket's window.
    """
    transfer.write(min(BURST_BYTES, transfer.payload_bytes // 2))
    if not watch.until(lambda: _quiet(transfer.server), _QUIET_TIMEOUT_S):
        return "a moment at which everything the client allowed was sent and acknowledged"
    if transfer.server_broken():
        return "a connection that lives until the stimulus"
    watch.note(set_stale_window(transfer.server, server))
    transfer.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ""


def _quiet(server: socket.socket) -> bool:
    """Whether nothing is in flight, and nothing waits but for the client's window to open."""
    info = tcp_info(server)
    return info.unacked == 0 and (info.notsent_bytes == 0 or info.snd_wnd_bytes < info.snd_mss_bytes)


def set_stale_window(server: socket.socket, netns: str) -> SocketEvent:
    """Make the kernel believe that the peer's window is STALE_WINDOW_BYTES or more; the event has what it reads back.

    UnsupportedError without TCP_REPAIR_WINDOW (v4.8) or CAP_NET_ADMIN over the namespace.
    """
    try:
        server.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _TCP_REPAIR_ON)
        snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup = _repair_window(server)
        stale = max(STALE_WINDOW_BYTES, 2 * snd_wnd)
        window = _REPAIR_WINDOW.pack(snd_wl1, stale, max(max_window, stale), rcv_wnd, rcv_wup)
        server.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, window)
        now_wnd = _repair_window(server)[1]
        time_ns = time.time_ns()
        # Leaving the repair mode like this sends no window probe of its own.
        server.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _TCP_REPAIR_OFF_NO_WP)
        # It also clears SO_REUSEADDR, without which the next trial could not listen while this socket lingers.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        raise UnsupportedError(f"can't set a socket's send window (TCP_REPAIR_WINDOW): {name}") from error
    return SocketEvent(
        time_ns,
        netns,
        SocketEventKind.STALE_WINDOW,
        window_bytes=now_wnd,
        was_bytes=snd_wnd,
        local_port=server.getsockname()[1],
        peer_port=server.getpeername()[1],
    )


def _repair_window(sock: socket.socket) -> tuple[int, ...]:
    return _REPAIR_WINDOW.unpack(sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _REPAIR_WINDOW.size))


def prove(events: FlowEvents) -> Proof:
    """Whether the stimulus took place, from what the kernel did. Pure.

    Either a segment left the server so far past the client's window that every kernel's conntrack finds it INVALID; or
    the client's window was open all along, and every byte that left under the stale one was inside it. A burst in
    between proves nothing: some kernels forgive it.
    """
    stale = next((event for event in events.sockets if event.kind is SocketEventKind.STALE_WINDOW), None)
    if stale is None:
        return Proof((), f"the stale window, read back from the socket in {events.flow.server}")
    window = Evidence(
        Link.STALE_WINDOW,
        stale,
        f"the kernel now believes in a send window of {stale.window_bytes:,} bytes (was {stale.was_bytes:,})",
    )
    if stale.window_bytes <= stale.was_bytes:
        return Proof(
            (), f"a larger send window: the kernel's went from {stale.was_bytes:,} to {stale.window_bytes:,} bytes"
        )
    sent = [
        packet
        for packet in events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
        if packet.segment.payload_bytes and packet.time_ns >= stale.time_ns
    ]
    reached = reach(events)
    if reached is None:
        return Proof((window,), "the handshake, which tells what the client allowed")
    if not sent:
        return Proof((window,), f"data leaving {events.flow.server} after the stale window was set")
    if reached.packet is not None:
        note = (
            f"ends {reached.beyond_bytes:,} bytes past what the client allowed; conntrack forgives at most "
            f"{reached.forgiven_bytes:,}"
        )
        return Proof((window, Evidence(Link.REPLY, reached.packet, note)))
    if reached.beyond_bytes > 0:
        return Proof(
            (window,),
            f"a burst far enough past the client's window: it went {reached.beyond_bytes:,} bytes past it, and "
            f"conntrack forgives {reached.forgiven_bytes:,}",
        )
    if stale.was_bytes < sent[0].segment.payload_bytes:
        return Proof(
            (window,),
            f"a burst past the client's window: of {stale.was_bytes:,} bytes, it was opened before anything left under "
            "the stale one",
        )
    note = "inside the client's window, as every byte the server sent"
    return Proof((window, Evidence(Link.REPLY, sent[0], note)))
