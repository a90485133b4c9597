"""slow-link: an interface sends on no faster than a rate, and what comes faster waits in its queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import LINK
from netlab.lab.steps import AddQdisc, DeleteQdisc
from netlab.links.qdisc import RATE, SIZE
from netlab.model import Qdisc
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "an interface sends no faster than a rate (tbf) until the trial is over; what comes faster waits in its queue"
BURST, LIMIT = "5kb", "1mb"
ARGUMENTS = Fields(
    {
        "link": Key(LINK, "the interface that sends", required=True),
        "rate": Key(RATE.shape, "how fast, in a unit of tc(8): 10mbit", required=True),
        "burst": Key(SIZE.shape, f"what may leave at once after a pause (default {BURST})"),
        "limit": Key(SIZE.shape, f"what fits into the queue, the rest is lost (default {LIMIT})"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Put the qdisc there; NotApplied where the topology gives the interface one, UnsupportedError without tbf."""
    from netlab.experiments.qdiscs import bare_interface

    netns, ifname = bare_interface(context, arguments["link"])
    words = (("rate", arguments["rate"]), ("burst", arguments.get("burst", BURST)))
    qdisc = Qdisc("tbf", (*words, ("limit", arguments.get("limit", LIMIT))))
    context.change(netns, [AddQdisc(netns, ifname, qdisc)], [DeleteQdisc(netns, ifname)])
