"""push: a socket sends at once what waits in its queue (TCP_NODELAY)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END_ARGUMENTS

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the socket at that end gets TCP_NODELAY, and sends what waits in its queue as far as the window allows"
ARGUMENTS = END_ARGUMENTS


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Set TCP_NODELAY, which pushes (do_tcp_setsockopt, net/ipv4/tcp.c)."""
    context.end(**arguments).socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
