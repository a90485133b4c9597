"""silence: an end's kernel gets nothing of the connection any more: only hand-written segments answer for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "the kernel at that end gets no segment sent to the connection's port there any more, and answers none, until the "
    "trial is over: only `craft-segment` speaks for that end"
)
ARGUMENTS = Fields(
    {"end": Key(END, "whose kernel; a client's once it has connected", required=True)},
    lambda text: {"end": text},
    "server",
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Drop what comes for it, by a rule that doesn't ask conntrack; NotApplied where nftables refuses."""
    end, roles = arguments["end"], context.roles
    places = [(server.netns, server.port) for server in roles.servers]
    if end == "client":
        places = [(roles.client, context.connection().client_port)]
    for netns, port in dict.fromkeys(places):
        text = f"  chain input {{\n    type filter hook input priority raw\n    tcp dport {port} drop\n  }}"
        context.add_table(netns, f"netlab_silence_{end}", text, stays=True)
