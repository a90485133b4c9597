"""slow-lane: one segment in so many takes a slow way past all others, as through an overloaded member of a fabric.

What waits there comes after its own retransmission. `hold-back` does it to one segment of one connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import END, LINK
from netlab.links import qdisc
from netlab.yamlspec.shapes import Fields, Integer, Key
from netlab.yamlspec.units import rate_bytes_per_s

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "at an interface, one in so many segments of one end goes into a slow class of its own (htb), by chance"
EVERY, RATE, LIMIT = 200, "100kbit", 30
ARGUMENTS = Fields(
    {
        "link": Key(LINK, "the interface of a namespace that forwards them", required=True),
        "from": Key(END, "whose segments with payload", required=True),
        "every": Key(Integer(1, 10**6), f"one segment in this many (default {EVERY})"),
        "rate": Key(qdisc.RATE.shape, f"of the slow class (default {RATE})"),
        "limit": Key(Integer(1, 10**5), f"so many segments wait at most, others are dropped (default {LIMIT})"),
    }
)
_TABLE = "netlab_slow_lane"


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Add the class and the rule; NotApplied where the interface has a qdisc already, UnsupportedError without htb."""
    from netlab.experiments.forwarded import pick
    from netlab.experiments.qdiscs import add_slow_class
    from netlab.linux.tc import SLOW_CLASS

    link, every = arguments["link"], arguments.get("every", EVERY)
    add_slow_class(context, link, rate_bytes_per_s(arguments.get("rate", RATE)), arguments.get("limit", LIMIT))
    netns = link.partition(":")[0]
    pick(context, netns, arguments["from"], _TABLE, f"numgen random mod {every} 0 meta priority set {SLOW_CLASS}")
