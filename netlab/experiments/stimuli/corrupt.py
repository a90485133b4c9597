"""corrupt: what a bad cable or a bad memory does: now and then one byte arrives that was not sent.

The sender must fill in its checksums itself: on a veth they are left out, and a segment without one can't be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END, NETNS
from netlab.yamlspec.shapes import Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "a namespace that forwards the connection changes a byte of every so many segments of one end, so that their TCP "
    "checksum is wrong, until the trial is over"
)
EVERY = 10
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace that forwards them", required=True),
        "from": Key(END, "whose segments with payload", required=True),
        "every": Key(Integer(1, 10**6), f"one segment in this many (default {EVERY})"),
    }
)
_TABLE = "netlab_corrupt"


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Add the rule, and have the sender's interfaces leave checksums to the host; NotApplied where nftables refuses."""
    from netlab.experiments.forwarded import pick

    roles, every = context.roles, arguments.get("every", EVERY)
    senders = {server.netns for server in roles.servers} if arguments["from"] == "server" else {roles.client}
    for interface in context.topology.interfaces():
        if interface.netns in senders:
            _compute(context, interface.netns, interface.ifname)
    # Past 20 bytes of header and 12 of timestamps; nft doesn't mend the checksum for a raw expression.
    byte = "@th,256,8"
    pick(
        context,
        arguments["in"],
        arguments["from"],
        _TABLE,
        f"numgen inc mod {every} {every - 1} {byte} set {byte} ^ 0xff",
    )


def _compute(context: Context, netns: str, ifname: str) -> None:
    from netlab.linux.ethtool import computes_checksums, set_computes_checksums

    def let_compute(on: bool) -> None:
        with context.namespaces.inside(netns):
            set_computes_checksums(ifname, on)

    with context.namespaces.inside(netns):
        computes = computes_checksums(ifname)
    if computes:
        context.make(lambda: let_compute(False), lambda: let_compute(True))
