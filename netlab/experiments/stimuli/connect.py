"""connect: the client connects, and sends a request that the server's program reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION
from netlab.record.flow import CANARY_PORT
from netlab.yamlspec.shapes import Boolean, Fields, Integer, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "the client connects and sends its request; the server's program has it when the step is done"
TIMEOUT_S = 5.0
ARGUMENTS = Fields(
    {
        "connection": Key(CONNECTION, "its name for later steps (default first, the one under study)"),
        "source_port": Key(
            Integer(CANARY_PORT + 1, 65535),
            f"the client's own port, not the observers' own {CANARY_PORT} (default: the kernel picks one)",
        ),
        "port_of": Key(
            CONNECTION, "the connection whose client's port it takes over, which must be closed or forgotten"
        ),
        "isn": Key(Integer(1, 2**32 - 1), "the client's initial sequence number (default: the kernel picks one)"),
        "wait": Key(
            Boolean(), "whether to wait until the request is there (default: where a server of netlab's listens)"
        ),
        "timeout_s": Key(Seconds(), f"how long it may take (default {TIMEOUT_S:g})"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Connect; NotApplied where the request hasn't arrived in time."""
    port = arguments.get("source_port", 0)
    if "port_of" in arguments:
        port = context.connection(arguments["port_of"]).client_port
    name = arguments.get("connection", FIRST)
    within_s = arguments.get("timeout_s", TIMEOUT_S) if arguments.get("wait", context.listens) else None
    if not context.connect(name, port, arguments.get("isn"), within_s):
        roles = context.roles
        raise NotApplied(f"a connection from {roles.client} to {roles.vip} port {roles.port}")
    context.connection(name).sample()
