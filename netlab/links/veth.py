"""A veth pair: two interfaces, each in its namespace; what is sent into one comes out of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from netlab.links import attributes
from netlab.links.keys import ADDRESSES, IFNAME, LINK_ATTRIBUTES, NETNS, ROOT_QDISC, SUBNET, UP
from netlab.links.kind import Draft, Drafter, Kind, LinkDraft, Table
from netlab.model import Attribute, Interface, Link, LinkAttributes, LinkData
from netlab.yamlspec.document import Item
from netlab.yamlspec.shapes import Fields, Key, ListOf, Text

_PEER = Attribute("VETH_INFO_PEER", 1)  # include/uapi/linux/veth.h


class Veth(NamedTuple):
    """A veth pair. `a` is made in its namespace, `b` is its peer; a bridge's port is always `a`."""

    a: Interface
    b: Interface

    @property
    def kind(self) -> str:
        return "veth"

    @property
    def mtu_follows_ports(self) -> bool:
        return False

    @property
    def queues(self) -> bool:
        return True

    def interfaces(self) -> tuple[Interface, ...]:
        return self.a, self.b

    def with_interfaces(self, *interfaces: Interface) -> Veth:
        return Veth(*interfaces)

    def describe(self) -> str:
        return f"{self.a.netns}: veth {self.a.ifname} to {self.b.netns} {self.b.ifname}"

    def twin(self, prefix: str) -> str:
        a, b = self
        master = "" if a.master is None else f" master {a.master}"
        return (
            f"ip -n {prefix}{a.netns} link add {a.ifname}{master}{attributes.words(a.attributes, queues=True)} "
            f"type veth peer name {b.ifname} netns {prefix}{b.netns}{attributes.words(b.attributes, queues=True)}"
        )

    def data(self) -> LinkData:
        return ((_PEER, self.b),)

    def fits(self, data: Mapping[str, int], was: Link | None) -> bool:  # noqa: ARG002 (a pair has nothing but its ends)
        return True

    def note(self, interface: Interface) -> str:
        other = self.b if interface is self.a else self.a
        return f"to {other.netns}"


def _end(text: str) -> dict[str, str]:
    netns, colon, ifname = text.partition(":")
    return {"netns": netns, "ifname": ifname} if colon else {"netns": netns}


_END_KEYS = {
    "netns": Key(NETNS, "the namespace it is in", required=True, kind="namespace", example="netns: client"),
    "ifname": Key(
        IFNAME,
        "the interface's name there",
        kind="interface name",
        default="`eth0`, `eth1`, …; in a node `veth-<peer>`",
        example="ifname: net0",
    ),
    "addresses": Key(
        ADDRESSES,
        "its addresses; without a prefix length it is the subnet's; `[]`: none",
        kind="addresses",
        default="assigned",
        example='addresses: [10.0.0.2, "fd00::2/64"]',
    ),
    **LINK_ATTRIBUTES,
    "qdisc": ROOT_QDISC,
    "bridge": Key(
        Text("a bridge's name"),
        "a bridge in that namespace that the interface is a port of: this joins two bridges",
        kind="bridge",
        default="none",
        example="bridge: br1",
    ),
    "up": UP,
}
_END_DOC = "client or client:eth0"
_LINK_END = Fields(_END_KEYS, _end, _END_DOC)
_PORT = Key(
    IFNAME,
    "the bridge-side interface's name",
    kind="interface name",
    default="`veth-<peer>`",
    example="port: to-client",
)
BRIDGE_PORT = Fields({**_END_KEYS, "port": _PORT}, _end, _END_DOC)
LINK = Fields(
    {
        "ends": Key(
            ListOf(_LINK_END, 2, 2),
            "`namespace`, `namespace:ifname`, or a mapping with the keys of a port, except `port`",
            required=True,
            kind="two ends",
            example="ends: [a, {netns: b, ifname: up0}]",
        ),
        "subnet": SUBNET,
    }
)


def _draft(drafter: Drafter, item: Item) -> Iterator[LinkDraft]:
    ends = item.get("ends", [])
    if [drafter.known(end) for end in ends] != [True, True]:
        drafter.left_out.update(end.get("netns", "") for end in ends)
        return
    a = drafter.end(ends[0], ends[1]["netns"].value)
    b = drafter.end(ends[1], ends[0]["netns"].value)
    if b.master is not None and a.master is None:
        a, b = b, a
    yield LinkDraft(KIND, item, (a, b), Veth, f"the link {a.netns} - {b.netns}")


def port(drafter: Drafter, item: Item, head: Draft) -> LinkDraft:
    """The pair by which a namespace, which is known, hangs on the bridge whose own interface is head."""
    far = drafter.end(item, head.netns)
    near = Draft(
        item,
        head.netns,
        item.get("port", ""),
        far.netns,
        attributes=LinkAttributes(mtu=far.attributes.mtu),
        master=head.ifname,
    )
    return LinkDraft(KIND, item, (near, far), Veth, f"the link {near.netns} - {far.netns}")


def prefixlen(version: int, members: int) -> int:  # noqa: ARG001 (always two)
    """Prefix length of a link's subnet: /30, since a /31 (RFC 3021) is not known to every tool; /64 for IPv6."""
    return 30 if version == 4 else 64


KIND = Kind(
    "veth",
    "links",
    Key(
        ListOf(LINK),
        "veth pairs from one namespace to another",
        kind="list",
        default="none",
        example="links: [{ends: [a, b]}]",
    ),
    _draft,
    "links",
    prefixlen,
    Veth,
    paired=True,
    tables=(
        Table(
            "Link",
            LINK,
            after="An end with `bridge` is a port of that bridge; a link whose two ends are ports joins two bridges"
            " into one segment.",
        ),
    ),
)
