"""receive-buffer: a socket gets more room, and may offer all of it as its window: what autotuning does by and by.

The kernel's own autotuning goes by how fast the program reads, and so by chance.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.words import BYTES, CONNECTION, END
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "the socket at that end gets a receive buffer of so many bytes (SO_RCVBUF, at most net.core.rmem_max), and may "
    "offer all of it as its window, which grows with what comes"
)
ARGUMENTS = Fields(
    {
        "end": Key(END, "whose socket", required=True),
        "bytes": Key(BYTES, "the buffer; the kernel doubles it", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Set both; the clamp of an established connection keeps the size that its buffer first had."""
    sock = context.end(arguments["end"], arguments.get("connection", FIRST)).socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, arguments["bytes"])
    got = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, got)
