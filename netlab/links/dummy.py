"""A dummy: an interface that drops what is sent through it; for addresses and routes that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from netlab.links import attributes
from netlab.links.keys import ADDRESSES, IFNAME, LINK_ATTRIBUTES, NETNS, ROOT_QDISC, UP
from netlab.links.kind import Drafter, Kind, LinkDraft, Table
from netlab.links.veth import prefixlen
from netlab.model import Interface, Link, LinkData
from netlab.yamlspec.document import Item
from netlab.yamlspec.shapes import Fields, Key, ListOf


class Dummy(NamedTuple):
    """A dummy device in a namespace."""

    interface: Interface

    @property
    def kind(self) -> str:
        return "dummy"

    @property
    def mtu_follows_ports(self) -> bool:
        return False

    @property
    def queues(self) -> bool:
        return False

    def interfaces(self) -> tuple[Interface, ...]:
        return (self.interface,)

    def with_interfaces(self, *interfaces: Interface) -> Dummy:
        return Dummy(*interfaces)

    def describe(self) -> str:
        return f"{self.interface.netns}: dummy {self.interface.ifname}"

    def twin(self, prefix: str) -> str:
        words = attributes.words(self.interface.attributes)
        return f"ip -n {prefix}{self.interface.netns} link add {self.interface.ifname}{words} type dummy"

    def data(self) -> LinkData:
        return ()

    def fits(self, data: Mapping[str, int], was: Link | None) -> bool:  # noqa: ARG002 (it has none)
        return True

    def note(self, interface: Interface) -> str:  # noqa: ARG002 (it has one)
        return "dummy"


DUMMY = Fields(
    {
        "name": Key(IFNAME, "the interface's name", required=True, kind="interface name", example="name: dummy0"),
        "netns": Key(NETNS, "the namespace it is in", required=True, kind="namespace", example="netns: router"),
        "addresses": Key(
            ADDRESSES, "its addresses", kind="addresses", default="none", example="addresses: 192.0.2.1/32"
        ),
        **LINK_ATTRIBUTES,
        "qdisc": ROOT_QDISC,
        "up": UP,
    }
)


def _draft(drafter: Drafter, item: Item) -> Iterator[LinkDraft]:
    end = drafter.named(item, "dummy")
    if end is not None:
        end.wants_addresses = False
        yield LinkDraft(KIND, item, (end,), Dummy, f"dummy {end.ifname} in {end.netns}")
    else:
        drafter.left_out.add(item.get("netns", ""))


KIND = Kind(
    "dummy",
    "dummies",
    Key(
        ListOf(DUMMY),
        "interfaces that drop what is sent through them",
        kind="list",
        default="none",
        example="dummies: [{name: dummy0, netns: a, addresses: 192.0.2.1/32}]",
    ),
    _draft,
    "links",
    prefixlen,
    Dummy,
    tables=(Table("Dummy", DUMMY),),
)
