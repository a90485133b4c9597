"""What the kernel has of a lab, as a value: `read.py` fills it, `diff/` compares it with a topology.

Pure. It is compared, never parsed: rules and qdiscs are texts as the kernel tells them, beside the texts that it would
tell if it had what the topology wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from netlab.kubeproxy import Family, Ruleset
from netlab.model import InterfaceAddress, LinkAttributes, Network, Route

LinkKey: TypeAlias = tuple[str, str]
"""(netns, ifname)."""


class LinkStatus(NamedTuple):
    """One interface. peer_index is the ifindex of a veth's other end; data are the numbers that only its kind has
    (IFLA_INFO_DATA), by the names of their attributes."""

    ifindex: int
    kind: str
    up: bool
    master: str | None
    attributes: LinkAttributes
    peer_index: int | None
    data: Mapping[str, int]


class Compared(NamedTuple):
    """What the kernel has, and what it would have if it had what is wanted; None for nothing."""

    has: str | None
    wants: str | None

    def same(self) -> bool:
        """Whether there is nothing to do."""
        return self.has == self.wants


class Status(NamedTuple):
    """All that a topology can speak of, in the namespaces that the lab owns and that are there.

    unrouted are the addresses, as (netns, ifname, address), that have no prefix route (`noprefixroute`). former are the
    values of sysctls, by (netns, key), from before the lab set them, where they are known. standing are kube-proxy's
    rules where they surely stand just as they were loaded; covered are the namespaces where a change that was cut short
    has left a copy of them; iptables are those that iptables-restore loads, tables the lab's own beside kube-proxy's,
    by (netns, family, name). routes_by_dst is what `routes_to` has found: empty in a value with other routes.
    """

    namespaces: frozenset[str]
    links: dict[LinkKey, LinkStatus]
    addresses: dict[LinkKey, frozenset[InterfaceAddress]]
    unrouted: set[tuple[str, str, InterfaceAddress]]
    routes: dict[str, frozenset[Route]]
    sysctls: dict[tuple[str, str], str]
    former: dict[tuple[str, str], str]
    rules: dict[str, Compared]
    standing: dict[str, Ruleset]
    covered: set[str]
    iptables: dict[tuple[str, Family], Compared]
    tables: dict[tuple[str, str, str], Compared]
    qdiscs: dict[LinkKey, Compared]
    hosts: str
    programs: frozenset[tuple[str, str]]
    routes_by_dst: dict[str, dict[Network, list[Route]]]

    def routes_to(self, netns: str, dst: Network) -> Sequence[Route]:
        """The routes of a namespace to just this destination."""
        found = self.routes_by_dst.get(netns)
        if found is None:
            found = self.routes_by_dst[netns] = {}
            for route in self.routes.get(netns, ()):
                found.setdefault(route.dst, []).append(route)
        return found.get(dst, ())
