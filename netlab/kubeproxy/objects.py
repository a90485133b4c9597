"""The objects of an nftables table as data: sets, maps, and chains of rules.

What the nftables mode is written in. Its rules are nft's own words, as in kube-proxy itself: nothing else will read
them, while `rules.py`'s must be written down in two languages. The rest of the syntax is `nft.py`'s. Names and comments
come from a Topology, whose loader has checked their characters.
"""

from __future__ import annotations

from typing import NamedTuple

from netlab.kubeproxy.rules import Family, Hook

KUBE_PROXY = "kube-proxy"
"""The name of the nftables mode's tables."""


class Element(NamedTuple):
    """A member of a set, or of a map with a value: ("10.96.0.1 . tcp . 80", "goto service-…"), in nft's words."""

    key: str
    value: str = ""
    comment: str = ""


class Set(NamedTuple):
    """A set, or a map where type has a value beside the key: "ipv4_addr . inet_proto . inet_service : verdict".

    A set with a timeout is filled by the packets that pass, and forgets each of them timeout_s seconds after its last.
    """

    name: str
    type: str
    comment: str = ""
    elements: tuple[Element, ...] = ()
    timeout_s: int | None = None


class Rule(NamedTuple):
    """One rule in nft's words, without its comment."""

    words: str
    comment: str = ""


class Chain(NamedTuple):
    """Rules in order. A chain with a hook is a base chain whose policy is accept."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    comment: str = ""


class Table(NamedTuple):
    """All under one table's name: ("ip", "kube-proxy") is what `nft list table ip kube-proxy` lists."""

    family: Family
    name: str
    comment: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]

    @property
    def timeouts_s(self) -> tuple[tuple[str, int], ...]:
        """How long the sets that packets fill remember, by name."""
        return tuple((each.name, each.timeout_s) for each in self.sets if each.timeout_s is not None)
