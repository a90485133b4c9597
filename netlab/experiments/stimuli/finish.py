"""finish: the transfer goes on to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.words import CONNECTION
from netlab.linux.deadlines import scaled
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "the client reads, the server sends the rest of the payload and closes; done when the client has the end of the "
    "stream, a socket has an error, or the experiment's timeout_s is over"
)
ARGUMENTS = Fields({"connection": Key(CONNECTION, "which connection (default first)")})

_CLIENT_ERROR_TIMEOUT_S = 0.5
"""How long the client may take to learn that the server's end has died: its next ACK tells it."""


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Let both programs go on; what became of the connection is the judge's to say."""
    connection = context.connection(arguments.get("connection", FIRST))
    deadline = time.monotonic() + scaled(context.timeout_s)
    connection.client.reads = True
    context.wait(lambda: connection.accepted is not None or connection.broken(), context.timeout_s)
    for end in connection.ends():
        if end.name == "server":
            end.goal_bytes, end.closes = end.payload_bytes, True
    context.wait(connection.settled, (deadline - time.monotonic()) / scaled(1))
    if connection.broken():
        context.wait(lambda: connection.client.ended or connection.client.broken, _CLIENT_ERROR_TIMEOUT_S)
    connection.sample()
