"""The keys of a topology that interfaces of several kinds have, with the shapes of their values."""

from __future__ import annotations

from netlab.links import words
from netlab.links.qdisc import QDISC
from netlab.yamlspec.limits import MAX_ADDRESSES
from netlab.yamlspec.shapes import Boolean, Integer, InvalidError, Key, ListOf, Shape, Text

UINT32_MAX = 2**32 - 1
_MTU = Integer(68, 65535)
"""veth's limits: ETH_MIN_MTU and ETH_MAX_MTU (include/uapi/linux/if_ether.h)."""

NETNS = Text("a namespace's name")
IFNAME = Text("an interface's name", words.ifname, words.IFNAME)
ADDRESSES = ListOf(Text("an address", words.interface_address), maximum=MAX_ADDRESSES, single=True)
SUBNETS = ListOf(Text("a subnet", words.network), single=True)


def _alias(text: str) -> str:
    if not 0 < len(text.encode()) < 256:  # IFALIASZ
        raise InvalidError("an alias has 1 to 255 bytes", "shorten it")
    return words.visible(text)


def _attribute(shape: Shape, doc: str, kind: str, example: str, default: str = "the kernel's") -> Key:
    return Key(shape, doc, kind=kind, default=default, example=example)


LINK_ATTRIBUTES = {
    "mtu": _attribute(_MTU, "largest packet in bytes; IPv6 needs 1280", "68 to 65535", "mtu: 1400"),
    "mac": _attribute(
        Text("a MAC address", words.mac, words.MAC), "a unicast address", "MAC address", 'mac: "02:00:00:00:00:01"'
    ),
    "txqlen": _attribute(Integer(0, UINT32_MAX), "transmit queue length in packets", "number", "txqlen: 100"),
    "gso_max_segs": _attribute(
        Integer(1, 65535),
        "most segments in one GSO packet; 1: MTU-sized packets only",
        "1 to 65535",
        "gso_max_segs: 1",
    ),
    "gso_max_size": _attribute(Integer(1, 524280), "largest GSO packet in bytes", "number", "gso_max_size: 20000"),
    "gro_max_size": _attribute(Integer(1, 524280), "largest GRO packet in bytes", "number", "gro_max_size: 20000"),
    "alias": _attribute(
        Text("an alias", _alias),
        "a note that `ip link` shows; the kernel only keeps it",
        "text",
        "alias: uplink",
        "none",
    ),
    "group": _attribute(
        Integer(0, UINT32_MAX), "the group that `ip link show group` selects by", "number", "group: 7", "0"
    ),
    "num_tx_queues": _attribute(Integer(1, 4096), "transmit queues", "1 to 4096", "num_tx_queues: 2", "1"),
    "num_rx_queues": _attribute(Integer(1, 4096), "receive queues", "1 to 4096", "num_rx_queues: 2", "1"),
}
"""The fields of model.LinkAttributes, by their names there."""

SUBNET = Key(
    ListOf(Text("a subnet", words.subnet), single=True),
    "what is left open is assigned from here; one subnet, or one of each family",
    kind="subnets",
    default="from the pool, or from the addresses given",
    example='subnet: [10.0.0.0/24, "fd00::/64"]',
)
UP = Key(Boolean(), "whether it is set up", kind="boolean", default="`true`", example="up: false")
ROOT_QDISC = Key(
    QDISC,
    "its root queueing discipline",
    kind="mapping, see [Qdiscs](#qdiscs)",
    default="the kernel's",
    example="qdisc: {kind: tbf, rate: 1mbit, burst: 16kb, latency: 50ms}",
)
