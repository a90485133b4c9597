"""stale-window: a socket assumes a larger window of its peer than it has, as after an ACK that came too late.

The packets that follow are the kernel's own: only the number that bounds them was changed (TCP_REPAIR_WINDOW).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.errors import unsupported
from netlab.experiments.experiment import FIRST
from netlab.experiments.words import CONNECTION, END
from netlab.linux.tcp_repair import repairing, set_window, window
from netlab.record.events import SocketEvent, SocketEventKind
from netlab.yamlspec.shapes import Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the socket at that end assumes a larger window of its peer than the peer has (TCP_REPAIR_WINDOW)"
WINDOW_BYTES = 1 << 20
ARGUMENTS = Fields(
    {
        "end": Key(END, "whose socket", required=True),
        "bytes": Key(Integer(1, 1 << 30), f"the window, at least twice the real one (default {WINDOW_BYTES})"),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    },
    lambda text: {"end": text},
    "server",
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Set the window; UnsupportedError where the kernel or the user can't."""
    end = context.end(arguments["end"], arguments.get("connection", FIRST))
    context.note(set_stale_window(end.socket, end.netns, arguments.get("bytes", WINDOW_BYTES)))


def set_stale_window(sock: socket.socket, netns: str, window_bytes: int = WINDOW_BYTES) -> SocketEvent:
    """Make the kernel believe that the peer's window is window_bytes or more; the event has what it reads back.

    UnsupportedError without TCP_REPAIR_WINDOW (v4.8) or CAP_NET_ADMIN over the namespace.
    """
    with unsupported("can't change what a socket believes"), repairing(sock):
        was = window(sock)
        stale = max(window_bytes, 2 * was.snd_wnd)
        set_window(sock, was._replace(snd_wnd=stale, max_window=max(was.max_window, stale)))
        now = window(sock)
        time_ns = time.time_ns()
    return SocketEvent(
        time_ns,
        netns,
        SocketEventKind.STALE_WINDOW,
        window_bytes=now.snd_wnd,
        was_bytes=was.snd_wnd,
        local_port=sock.getsockname()[1],
        peer_port=sock.getpeername()[1],
    )
