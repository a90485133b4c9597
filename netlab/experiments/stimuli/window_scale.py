"""window-scale: conntrack in a namespace takes one end's windows for larger or smaller than they are.

The window in a header is shifted by as many bits as the sender's SYN said (RFC 7323), and conntrack remembers how many.
Linux kernels from 5.18 to 6.7 could forget it where a second SYN had a higher number: Linux kernel commit c7aab4f17021
("netfilter: nf_conntrack_tcp: re-init for syn packets only") (in v5.18), mended by fb366fc7541a ("netfilter: conntrack:
correct window scaling with retransmitted SYN") (in v6.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.conntrack.values import TCP_MAX_WSCALE
from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, END, TRACKER
from netlab.yamlspec.shapes import Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "conntrack in a namespace shifts the windows of one end by so many bits from now on (ctnetlink)"
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "of": Key(END, "whose windows", required=True),
        "bits": Key(Integer(0, TCP_MAX_WSCALE), "by how many bits; both ends must have offered scaling", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Set it, and read it back; NotApplied where there is no entry, or its scales stay. OSError if refused."""
    from netlab.linux import ctnetlink

    netns = arguments["in"]
    header = context.tracked_as(netns, arguments.get("connection", FIRST))
    with context.namespaces.inside(netns):
        found = ctnetlink.window_scales(header) if header is not None else None
        if header is None or found is None:
            raise NotApplied(f"an entry of the connection, with window scales, in {netns}'s conntrack")
        original, reply = found
        wanted = (arguments["bits"], reply) if arguments["of"] == "client" else (original, arguments["bits"])
        ctnetlink.set_window_scales(header, *wanted)
        if ctnetlink.window_scales(header) != wanted:
            raise NotApplied(f"the window scales {wanted} in {netns}'s conntrack: they stay {found}")
