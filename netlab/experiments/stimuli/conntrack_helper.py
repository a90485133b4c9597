"""conntrack-helper: conntrack reads along in connections to a port, and expects the connections announced in them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import NETNS, PORT
from netlab.yamlspec.shapes import Choice, Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "new connections to a port get one of conntrack's helpers in a namespace until the trial is over (nft `ct helper`)"
)
_TABLE = "netlab_helper"
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace whose conntrack it is", required=True),
        "helper": Key(Choice("a helper", ("ftp",)), "which", required=True),
        "port": Key(PORT, "the port that the client connects to", required=True),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Make a table that sets it; NotApplied where the kernel has no such helper."""
    from netlab.linux import nft

    netns = arguments["in"]

    def load(commands: str) -> None:
        with context.namespaces.inside(netns):
            nft.run(commands)

    def remove() -> None:
        with suppress(OSError):  # another such step has removed it already
            load(f"delete table inet {_TABLE}")

    try:
        context.make(lambda: load(_table(arguments["helper"], arguments["port"])), remove)
    except OSError as error:
        raise NotApplied(f"conntrack's helper {arguments['helper']} in {netns}: {error.strerror}") from None


def _table(helper: str, port: int) -> str:
    """A chain after conntrack has found the entry (-200), and before the destination is translated (-100)."""
    return f"""
table inet {_TABLE} {{
  ct helper reads-along {{ type "{helper}" protocol tcp; }}
  chain first {{
    type filter hook prerouting priority -150
    tcp dport {port} ct helper set "reads-along"
  }}
}}
"""
