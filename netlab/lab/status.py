"""What the kernel has of a lab, as a value: `read.py` fills it, `diff/` compares it with a topology.

Pure. It is compared, never parsed: rules and qdiscs are texts as the kernel tells them, beside the texts that it would
tell if it had what the topology wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from netlab.kubeproxy import Family, Ruleset
from netlab.model import InterfaceAddress, LinkAttributes, Network, Route

LinkKey: TypeAlias = tuple[str, str]
"""(netns, ifname)."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One interface. peer_index is the ifindex of a veth's other end; data are the numbers that only its kind has
    (IFLA_INFO_DATA), by the names of their attributes."""

    index: int
    kind: str
    up: bool
    master: str | None
    attributes: LinkAttributes
    peer_index: int | None = None
    data: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the kernel has, and what it would have if it had what is wanted; None for nothing."""

    has: str | None
    wants: str | None

    def same(self) -> bool:
        """Whether there is nothing to do."""
        return self.has == self.wants


@dataclass(frozen=True, slots=True)
class Status:
    """All that a topology can speak of, in the namespaces that the lab owns and that are there.

    standing are kube-proxy's rules where they surely stand just as they were loaded.
    unrouted are the addresses, as (netns, ifname, address), that have no prefix route (`noprefixroute`). covered are
    the namespaces where a change that was cut short has left a copy of kube-proxy's rules. iptables are those rules
    where iptables-restore loads them, tables the lab's own beside kube-proxy's, by (netns, family,
    name). former are the values of sysctls, by (netns, key), from before the lab set them, where they are known.
    """

    namespaces: frozenset[str] = frozenset()
    links: dict[LinkKey, LinkStatus] = field(default_factory=dict)
    addresses: dict[LinkKey, frozenset[InterfaceAddress]] = field(default_factory=dict)
    unrouted: set[tuple[str, str, InterfaceAddress]] = field(default_factory=set)
    routes: dict[str, frozenset[Route]] = field(default_factory=dict)
    sysctls: dict[tuple[str, str], str] = field(default_factory=dict)
    former: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, Compared] = field(default_factory=dict)
    standing: dict[str, Ruleset] = field(default_factory=dict)
    covered: set[str] = field(default_factory=set)
    iptables: dict[tuple[str, Family], Compared] = field(default_factory=dict)
    tables: dict[tuple[str, str, str], Compared] = field(default_factory=dict)
    qdiscs: dict[LinkKey, Compared] = field(default_factory=dict)
    hosts: str = ""
    programs: frozenset[tuple[str, str]] = frozenset()
    _routes_to: dict[str, dict[Network, list[Route]]] = field(default_factory=dict, init=False, compare=False)

    def routes_to(self, netns: str, dst: Network) -> Sequence[Route]:
        """The routes of a namespace to just this destination."""
        found = self._routes_to.get(netns)
        if found is None:
            found = self._routes_to[netns] = {}
            for route in self.routes.get(netns, ()):
                found.setdefault(route.dst, []).append(route)
        return found.get(dst, ())
