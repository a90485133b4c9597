"""The lab's picture, with the connection's way through it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from netlab.model import Topology
from netlab.report import graph
from netlab.report.markup import Markup, tag
from netlab.report.page import figure, folded


def render(topology: Topology | None, unreadable: str, way: Sequence[str]) -> Markup:
    """The namespaces, those on the way marked; without a topology the reason why there is none."""
    if topology is None:
        return folded("lab", "The lab", tag("p", f"No picture: {unreadable}"))
    return folded(
        "lab", "The lab", figure("The lab's namespaces", graph.svg(topology, way), graph.width(topology, way))
    )
