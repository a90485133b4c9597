"""What a kind of interface is to those who don't know it: a section of a topology, and how its items become links.

A link and its ends are drafts until names and addresses that were left open are filled in (`topology/wiring.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from netlab.links.keys import LINK_ATTRIBUTES
from netlab.links.qdisc import qdisc
from netlab.links.words import GivenAddress
from netlab.model import Attribute, Interface, InterfaceAddress, Link, LinkAttributes, Qdisc
from netlab.yamlspec.document import Item, Reader, suggest
from netlab.yamlspec.shapes import Fields, Key

DEFAULT_ATTRIBUTES = LinkAttributes()


class Draft:
    """An interface in the making. peer is the namespace at the other end, if there is one; wants_addresses: some are to
    be assigned.

    ifname is empty where the name is still to be chosen; item is what was read, for the places of problems.
    """

    def __init__(
        self,
        item: Item,
        netns: str,
        ifname: str,
        peer: str = "",
        *,
        given: list[tuple[GivenAddress, Item]] | None = None,
        wants_addresses: bool = False,
        attributes: LinkAttributes = DEFAULT_ATTRIBUTES,
        qdisc: Qdisc | None = None,
        master: str | None = None,
        up: bool = True,
    ) -> None:
        self.item, self.netns, self.ifname, self.peer = item, netns, ifname, peer
        self.given = given or []
        self.wants_addresses = wants_addresses
        self.attributes, self.qdisc, self.master, self.up = attributes, qdisc, master, up
        self.addresses: list[InterfaceAddress] = []

    def interface(self) -> Interface:
        """The finished value."""
        addresses = tuple(self.addresses)
        return Interface(self.netns, self.ifname, addresses, self.attributes, self.qdisc, self.master, self.up)


class LinkDraft(NamedTuple):
    """A link in the making: its ends, in the order in which make takes them, and what they are told to be in messages.

    label names the segment that it is where it isn't part of another one. stp: it takes part in a spanning tree, which
    breaks loops.
    """

    kind: Kind
    item: Item
    ends: tuple[Draft, ...]
    make: Callable[..., Link]
    label: str
    stp: bool = False

    def link(self, finished: Callable[[Draft], Interface]) -> Link:
        """The finished value, of the finished ends."""
        return self.make(*map(finished, self.ends))


class Table(NamedTuple):
    """A table of keys in docs/topology.md, under its heading, and what stands before and after it."""

    heading: str
    keys: Fields
    before: str = ""
    after: str = ""


class Kind(NamedTuple):
    """A kind of interface.

    name is the kernel's word for it. section is the key of a topology that lists such links, and key what stands there;
    draft makes links of an item: its own kind's, of the class value, and what hangs on it. pool is the one that
    subnets left open come from, prefixlen how long their prefix is, of an IP version and a number of members. paired
    links have two ends; one that carries ports is the master of other interfaces. compared are the attributes of its
    own, numbers all, that `Link.fits` asks the kernel's link for. tables are its keys in the page.
    """

    name: str
    section: str
    key: Key
    draft: Callable[[Drafter, Item], Iterator[LinkDraft]]
    pool: str
    prefixlen: Callable[[int, int], int]
    value: type[Link]
    paired: bool = False
    carries_ports: bool = False
    compared: tuple[Attribute, ...] = ()
    tables: tuple[Table, ...] = ()


class Drafter:
    """Makes drafts of one topology's items; what can't be placed is told to the reader and left out.

    left_out are the namespaces that miss an interface because of that.
    """

    def __init__(self, reader: Reader, namespaces: Collection[str]) -> None:
        self.reader = reader
        self.namespaces = namespaces
        self.left_out: set[str] = set()
        self._named: dict[tuple[str, str, str], Item] = {}

    def known(self, item: Item) -> bool:
        """Whether an item says what namespace it is in, and there is one of that name."""
        if "netns" not in item:
            return False
        named = item["netns"]
        if named.value in self.namespaces:
            return True
        self.reader.at(named, f"no namespace is called {named.value!r}", suggest(named.value, self.namespaces))
        return False

    def end(self, item: Item, peer: str = "") -> Draft:
        """An interface of what stands in its item, in a namespace that is known."""
        given = [(address.value, address) for address in item.get("addresses", [])]
        attributes = {name: item[name].value for name in LINK_ATTRIBUTES if name in item}
        return Draft(
            item,
            netns=item["netns"].value,
            ifname=item.get("ifname", ""),
            peer=peer,
            given=given,
            wants_addresses="addresses" not in item,
            attributes=LinkAttributes(**attributes) if attributes else DEFAULT_ATTRIBUTES,
            qdisc=qdisc(self.reader, item["qdisc"]) if "qdisc" in item else None,
            master=item.get("bridge"),
            up=item.get("up", True),
        )

    def named(self, item: Item, kind: str) -> Draft | None:
        """The interface of an item with a `name` of its own; None, and a problem, where it can't be placed."""
        if not self.known(item) or "name" not in item:
            return None
        end = self.end(item)
        end.ifname = item["name"].value
        first = self._named.setdefault((kind, end.netns, end.ifname), item)
        if first is not item:
            self.reader.at(item["name"], f"{end.netns} has a {kind} {end.ifname!r} already", where(first.line))
            return None
        return end


def where(line: int) -> str:
    """The hint that leads to another line of the file."""
    return f"see line {line}" if line else "see --set"
