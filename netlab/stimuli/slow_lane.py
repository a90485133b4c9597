"""slow-lane: one segment in so many takes a slow way past all others, as through an overloaded member of a fabric.

What waits there comes after its own retransmission. `hold-back` does it to one segment of one connection.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END, LINK
from netlab.stimuli import NotApplied
from netlab.topology import language
from netlab.topology.shapes import Fields, Integer, Key
from netlab.units import rate_bytes_per_s

if TYPE_CHECKING:
    from netlab.experiments.stage import Stage

DOC = "at an interface, one in so many segments of one end goes into a slow class of its own (htb), by chance"
EVERY, RATE, LIMIT = 200, "100kbit", 30
ARGUMENTS = Fields(
    {
        "link": Key(LINK, "the interface of a namespace that forwards them", required=True),
        "from": Key(END, "whose segments with payload", required=True),
        "every": Key(Integer(1, 10**6), f"one of so many (default {EVERY})"),
        "rate": Key(language.RATE.shape, f"of the slow class (default {RATE})"),
        "limit": Key(Integer(1, 10**5), f"so many segments wait at most, others are dropped (default {LIMIT})"),
    }
)
_TABLE = "netlab_slow_lane"


def apply(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Add the class and the rule; NotApplied where the interface has a qdisc already, UnsupportedError without htb."""
    from netlab import tc
    from netlab.experiments.forwarded import pick

    netns, _, ifname = arguments["link"].partition(":")
    if any(each.qdisc for each in stage.topology.interfaces() if (each.netns, each.ifname) == (netns, ifname)):
        raise NotApplied(f"an interface without a qdisc of its own: {netns}:{ifname} has one")

    def remove() -> None:
        with stage.namespaces.inside(netns):
            tc.delete_root(index)

    with stage.namespaces.inside(netns):
        index = socket.if_nametoindex(ifname)
        tc.add_slow_class(index, rate_bytes_per_s(arguments.get("rate", RATE)), arguments.get("limit", LIMIT))
    stage.undo(remove)
    every = arguments.get("every", EVERY)
    pick(stage, netns, arguments["from"], _TABLE, f"numgen random mod {every} 0 meta priority set {tc.SLOW_CLASS}")
