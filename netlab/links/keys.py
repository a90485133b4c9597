"""The keys of a topology that interfaces of several kinds have, with the shapes of their values."""

from __future__ import annotations

from netlab.links import words
from netlab.yamlspec.shapes import Boolean, Integer, InvalidError, Key, ListOf, Text

UINT32_MAX = 2**32 - 1
_MTU = Integer(68, 65535)
"""veth's limits: ETH_MIN_MTU and ETH_MAX_MTU (include/uapi/linux/if_ether.h)."""

NETNS = Text("a namespace's name")
IFNAME = Text("an interface's name", words.ifname, words.IFNAME)
ADDRESSES = ListOf(Text("an address", words.interface_address), single=True)
SUBNETS = ListOf(Text("a subnet", words.network), single=True)


def _alias(text: str) -> str:
    if not 0 < len(text.encode()) < 256:  # IFALIASZ
        raise InvalidError("an alias has 1 to 255 bytes", "shorten it")
    return text


LINK_ATTRIBUTES = {
    "mtu": Key(_MTU, "largest packet in bytes"),
    "mac": Key(Text("a MAC address", words.mac, words.MAC), "MAC address"),
    "txqlen": Key(Integer(0, UINT32_MAX), "transmit queue length in packets"),
    "gso_max_segs": Key(Integer(1, 65535), "most segments in one GSO packet; 1 means MTU-sized packets only"),
    "gso_max_size": Key(Integer(1, 524280), "largest GSO packet in bytes"),
    "gro_max_size": Key(Integer(1, 524280), "largest GRO packet in bytes"),
    "alias": Key(Text("an alias", _alias), "a note on the interface, as `ip link` shows it"),
    "group": Key(Integer(0, UINT32_MAX), "the group's number, by which `ip link show group` selects"),
    "num_tx_queues": Key(Integer(1, 4096), "transmit queues (default 1)"),
    "num_rx_queues": Key(Integer(1, 4096), "receive queues (default 1)"),
}
"""The fields of model.LinkAttributes, by their names there."""

SUBNET = Key(SUBNETS, "what is left open is assigned from here; one subnet, or one of each family")
UP = Key(Boolean(), "whether it is set up (default true)")
