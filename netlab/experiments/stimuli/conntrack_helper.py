"""conntrack-helper: conntrack reads along in connections to a port, and expects the connections announced in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    helper, port = arguments["helper"], arguments["port"]
    # After conntrack has found the entry (-200), and before the destination is translated (-100).
    text = f"""\
  ct helper reads-along {{ type "{helper}" protocol tcp; }}
  chain first {{
    type filter hook prerouting priority -150
    tcp dport {port} ct helper set "reads-along"
  }}"""
    context.add_table(arguments["in"], _TABLE, text, f"conntrack's helper {helper}")
