"""Queueing disciplines that stimuli give to interfaces until the trial is over."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from netlab.experiments.not_applied import NotApplied

if TYPE_CHECKING:
    from netlab.experiments.context import Context


def bare_interface(context: Context, link: str) -> tuple[str, str]:
    """Namespace and name of an interface, `server-node:eth0`; NotApplied where the topology gives it a qdisc."""
    netns, _, ifname = link.partition(":")
    if any(end.qdisc for end in context.topology.interfaces() if (end.netns, end.ifname) == (netns, ifname)):
        raise _taken(link)
    return netns, ifname


def add_slow_class(context: Context, link: str, bytes_per_s: float, limit: int | None = None) -> None:
    """`tc.add_slow_class` at an interface; NotApplied where it has a qdisc already, UnsupportedError without htb."""
    from netlab.lab.qdiscs import lacking
    from netlab.linux import tc

    netns, ifname = bare_interface(context, link)
    with context.namespaces.inside(netns):
        index = socket.if_nametoindex(ifname)

    def add() -> None:
        with context.namespaces.inside(netns):
            tc.add_slow_class(index, bytes_per_s, limit)

    def remove() -> None:
        with context.namespaces.inside(netns):
            tc.delete_root(index)

    try:
        context.make(add, remove)
    except FileExistsError:
        raise _taken(link) from None
    except FileNotFoundError:
        raise lacking("htb") from None


def _taken(link: str) -> NotApplied:
    return NotApplied(f"an interface without a qdisc of its own: {link} has one")
