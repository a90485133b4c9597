"""A bridge: an interface that forwards frames among its ports, which are ends of veth pairs."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from netlab.links import attributes, veth
from netlab.links.keys import ADDRESSES, IFNAME, LINK_ATTRIBUTES, NETNS, ROOT_QDISC, SUBNET
from netlab.links.kind import Drafter, Kind, LinkDraft, Table
from netlab.model import Attribute, Interface, Link, LinkData
from netlab.yamlspec.document import Item
from netlab.yamlspec.shapes import Boolean, Fields, Key, ListOf

# include/uapi/linux/if_link.h
_STP_STATE = Attribute("IFLA_BR_STP_STATE", 5)
_VLAN_FILTERING = Attribute("IFLA_BR_VLAN_FILTERING", 7)
_MCAST_SNOOPING = Attribute("IFLA_BR_MCAST_SNOOPING", 23)


class Bridge(NamedTuple):
    """A bridge device in a namespace; its ports are the interfaces whose master it is."""

    interface: Interface
    stp: bool = False
    mcast_snooping: bool = False
    vlan_filtering: bool = False

    @property
    def kind(self) -> str:
        return "bridge"

    @property
    def mtu_follows_ports(self) -> bool:
        return True

    @property
    def queues(self) -> bool:
        return False

    def interfaces(self) -> tuple[Interface, ...]:
        return (self.interface,)

    def with_interfaces(self, *interfaces: Interface) -> Bridge:
        return self._replace(interface=interfaces[0])

    def describe(self) -> str:
        return f"{self.interface.netns}: bridge {self.interface.ifname}"

    def twin(self, prefix: str) -> str:
        netns, ifname = self.interface.netns, self.interface.ifname
        options = f"mcast_snooping {self.mcast_snooping:d}"
        options += " stp_state 1" if self.stp else ""
        options += " vlan_filtering 1" if self.vlan_filtering else ""
        words = attributes.words(self.interface.attributes)
        return f"ip -n {prefix}{netns} link add {ifname}{words} type bridge {options}"

    def data(self) -> LinkData:
        # What is off by default is not mentioned: a kernel built without it refuses even that.
        data: LinkData = ((_MCAST_SNOOPING, bytes([self.mcast_snooping])),)
        if self.stp:
            data += ((_STP_STATE, 1),)
        if self.vlan_filtering:
            data += ((_VLAN_FILTERING, b"\1"),)
        return data

    def fits(self, data: Mapping[str, int], was: Link | None) -> bool:
        had = was._options() if isinstance(was, Bridge) else dict.fromkeys(self._options(), False)
        return all(
            bool(data.get(option.name)) == wanted or not (wanted or had[option])
            for option, wanted in self._options().items()
        )

    def _options(self) -> dict[Attribute, bool]:
        return {_STP_STATE: self.stp, _MCAST_SNOOPING: self.mcast_snooping, _VLAN_FILTERING: self.vlan_filtering}

    def note(self, interface: Interface) -> str:  # noqa: ARG002 (it has one)
        return "bridge"


def _option(doc: str, example: str) -> Key:
    return Key(Boolean(), doc, kind="boolean", default="`false`", example=example)


BRIDGE = Fields(
    {
        "name": Key(
            IFNAME,
            "the bridge's interface name",
            required=True,
            kind="interface name",
            example="name: cni0",
        ),
        "netns": Key(
            NETNS,
            "the namespace it is in",
            required=True,
            kind="namespace",
            example="netns: node",
        ),
        "addresses": Key(
            ADDRESSES,
            "the bridge's own; `[]`: none",
            kind="addresses",
            default="assigned",
            example="addresses: 10.0.0.1/24",
        ),
        "subnet": SUBNET,
        **LINK_ATTRIBUTES,
        "mac": LINK_ATTRIBUTES["mac"]._replace(default="one made from its name"),
        "qdisc": ROOT_QDISC,
        "stp": _option("spanning tree protocol; a loop of bridges needs it", "stp: true"),
        "mcast_snooping": _option("multicast snooping", "mcast_snooping: true"),
        "vlan_filtering": _option("VLAN filtering", "vlan_filtering: true"),
        "ports": Key(
            ListOf(veth.BRIDGE_PORT),
            "who hangs on it: `namespace`, `namespace:ifname`, or a mapping",
            kind="list of ports",
            default="none",
            example='ports: [client, "web:eth1", {netns: db, mtu: 1400}]',
        ),
    }
)
_OPTIONS = ("stp", "mcast_snooping", "vlan_filtering")


def _own_mac(netns: str, ifname: str) -> str:
    """A locally administered address made from a bridge's name.

    A bridge without one takes the lowest of its ports' (br_stp_recalculate_bridge_id, net/bridge), another when that
    port goes or a lower one comes: what its neighbours know of it is then wrong, and all they send is lost.
    """
    return f"02:62:{crc32(f'{netns}:{ifname}'.encode()).to_bytes(4).hex(':')}"


def _draft(drafter: Drafter, item: Item) -> Iterator[LinkDraft]:
    head = drafter.named(item, "bridge")
    if head is not None:
        if head.attributes.mac is None:
            head.attributes = head.attributes._replace(mac=_own_mac(head.netns, head.ifname))
        make = partial(Bridge, **{name: item[name].value for name in _OPTIONS if name in item})
        label = f"bridge {head.ifname} in {head.netns}"
        yield LinkDraft(KIND, item, (head,), make, label, stp=item.get("stp", False))
    for each in item.get("ports", []):
        # A port of a bridge that has problems of its own is still checked for its namespace.
        if drafter.known(each) and head is not None:
            yield veth.port(drafter, each, head)
        else:
            drafter.left_out.add(each.get("netns", ""))


def prefixlen(version: int, members: int) -> int:
    """Prefix length of a bridge's subnet: /24, or larger where more than 254 hang on it; /64 for IPv6."""
    if version == 6:
        return 64
    return min(24, 32 - (members + 1).bit_length())


KIND = Kind(
    "bridge",
    "bridges",
    Key(
        ListOf(BRIDGE),
        "bridges and who hangs on them",
        kind="list",
        default="none",
        example="bridges: [{name: br0, netns: a, ports: [b]}]",
    ),
    _draft,
    "bridges",
    prefixlen,
    Bridge,
    carries_ports=True,
    compared=(_STP_STATE, _VLAN_FILTERING, _MCAST_SNOOPING),
    tables=(
        Table("Bridge", BRIDGE),
        Table(
            "Port",
            veth.BRIDGE_PORT,
            before="What stands here concerns the interface in the namespace that hangs on the bridge; of it, the"
            " bridge-side end takes the `mtu`.",
        ),
    ),
)
