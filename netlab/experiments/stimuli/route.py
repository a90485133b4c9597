"""route: a namespace sends what goes to a destination another way from now on."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import NETNS
from netlab.lab.steps import AddRoute, DeleteRoute
from netlab.model import Route
from netlab.topology import words
from netlab.yamlspec.shapes import Fields, Key, Text

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "a namespace's route to a destination leads to another gateway until the trial is over"
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace whose route changes", required=True),
        "to": Key(Text("a destination", words.destination), "default, a subnet, or one address", required=True),
        "gateway": Key(Text("an address", words.address), "the new gateway", required=True),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Put the new route in the place of the topology's; NotApplied where the topology has none to that destination."""
    netns, gateway = arguments["in"], arguments["gateway"]
    dst = arguments["to"] or ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0")
    old = next((route for route in context.topology.netns(netns).routes if route.dst == dst), None)
    if old is None:
        raise NotApplied(f"a route to {dst} in {netns}, among those of the topology")
    new = Route(dst, gateway, None, old.src, old.metric)
    context.change(
        netns,
        [DeleteRoute(netns, old), AddRoute(netns, new)],
        [DeleteRoute(netns, new), AddRoute(netns, old)],
    )
