"""Our rtnetlink requests are those that pyroute2 makes of the same values."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netlab.links.attributes import numbered, numbered_of_change
from netlab.links.bridge import Bridge
from netlab.linux import rtnl
from netlab.model import Interface, LinkAttributes, Route

REQUEST, ACK, EXCL, CREATE = 0x1, 0x4, 0x200, 0x400
NEW = REQUEST | CREATE | EXCL
Attributes = Sequence[Any]

PLAIN = LinkAttributes()
FULL = LinkAttributes(
    mtu=1400,
    mac="02:00:00:00:00:01",
    txqlen=77,
    gso_max_segs=1,
    gso_max_size=20_000,
    gro_max_size=30_000,
    num_tx_queues=2,
    num_rx_queues=3,
)
FULL_WORDS = [
    ["IFLA_ADDRESS", "02:00:00:00:00:01"],
    ["IFLA_MTU", 1400],
    ["IFLA_TXQLEN", 77],
    ["IFLA_GSO_MAX_SEGS", 1],
    ["IFLA_GSO_MAX_SIZE", 20_000],
    ["IFLA_GRO_MAX_SIZE", 30_000],
]
PLAIN_QUEUES = [["IFLA_NUM_TX_QUEUES", 1], ["IFLA_NUM_RX_QUEUES", 1]]
FULL_QUEUES = [["IFLA_NUM_TX_QUEUES", 2], ["IFLA_NUM_RX_QUEUES", 3]]


def pyroute2s(kind: Any, number: int, flags: int, fields: dict[str, Any], attributes: Attributes) -> bytes:
    """A request as pyroute2 encodes it."""
    message = kind()
    message["header"]["type"], message["header"]["flags"] = number, flags
    message["header"]["sequence_number"] = message["header"]["pid"] = 0
    for field, value in fields.items():
        message[field] = value
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data)


def decoded(message: bytes) -> Any:
    """A link request as pyroute2 reads it, attributes in their order."""
    reader = ifinfmsg(message)
    reader.decode()
    told = reader.dump()
    del told["header"]["length"]  # pyroute2 ends the kind of a link with a NUL, which rtnetlink doesn't need
    return told


def link(index: int, attributes: Attributes, flags: int = NEW, number: int = rtnl.RTM_NEWLINK, **fields: int) -> bytes:
    return pyroute2s(ifinfmsg, number, flags, {"family": 0, "index": index, **fields}, attributes)


# --- links -----------------------------------------------------------------------------------------------------------


def veth_by_pyroute2(attributes: Attributes, master: int | None, peer_attributes: Attributes) -> bytes:
    enslaved = [] if master is None else [["IFLA_MASTER", master]]
    peer = {"index": 101, "attrs": [["IFLA_IFNAME", "eth0"], ["IFLA_NET_NS_FD", 9], *peer_attributes]}
    info = [["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", {"attrs": [["VETH_INFO_PEER", peer]]}]]
    return link(100, [["IFLA_IFNAME", "veth-a"], *attributes, *enslaved, ["IFLA_LINKINFO", {"attrs": info}]])


def test_a_link_with_a_peer() -> None:
    peer = rtnl.peer("eth0", 101, numbered(PLAIN, queues=True), 9)
    plain = rtnl.new_link("veth-a", 100, "veth", numbered(PLAIN, queues=True), data=[(1, peer)])
    assert decoded(plain) == decoded(veth_by_pyroute2(PLAIN_QUEUES, None, PLAIN_QUEUES))
    full = rtnl.new_link("veth-a", 100, "veth", numbered(FULL, queues=True), 7, [(1, peer)])
    assert decoded(full) == decoded(veth_by_pyroute2([*FULL_WORDS, *FULL_QUEUES], 7, PLAIN_QUEUES))
    peer = rtnl.peer("eth0", 101, numbered(FULL, queues=True), 9)
    peers = rtnl.new_link("veth-a", 100, "veth", numbered(PLAIN, queues=True), data=[(1, peer)])
    assert decoded(peers) == decoded(veth_by_pyroute2(PLAIN_QUEUES, None, [*FULL_WORDS, *FULL_QUEUES]))


def bridge_by_pyroute2(attributes: Attributes, options: Attributes) -> bytes:
    info = [["IFLA_INFO_KIND", "bridge"], ["IFLA_INFO_DATA", {"attrs": options}]]
    return link(100, [["IFLA_IFNAME", "cni0"], *attributes, ["IFLA_LINKINFO", {"attrs": info}]])


def bridge(attributes: LinkAttributes, **options: bool) -> bytes:
    made = Bridge(Interface("node", "cni0", attributes=attributes), **options)
    data = [(attribute.number, value) for attribute, value in made.data() if not isinstance(value, Interface)]
    return rtnl.new_link("cni0", 100, made.kind, numbered(attributes, queues=made.queues), data=data)


def test_a_link_with_data_of_its_kind() -> None:
    assert decoded(bridge(PLAIN)) == decoded(bridge_by_pyroute2([], [["IFLA_BR_MCAST_SNOOPING", 0]]))
    options = [["IFLA_BR_MCAST_SNOOPING", 1], ["IFLA_BR_STP_STATE", 1], ["IFLA_BR_VLAN_FILTERING", 1]]
    full = bridge(FULL, stp=True, mcast_snooping=True, vlan_filtering=True)
    assert decoded(full) == decoded(bridge_by_pyroute2([*FULL_WORDS, *FULL_QUEUES], options))


def test_changes_of_a_link() -> None:
    assert rtnl.set_link(7, numbered_of_change(PLAIN), 0) == link(7, [["IFLA_MASTER", 0]], REQUEST)
    assert rtnl.set_link(7, numbered_of_change(FULL), None) == link(7, FULL_WORDS, REQUEST)
    assert rtnl.set_link(7, numbered_of_change(FULL), 9) == link(7, [*FULL_WORDS, ["IFLA_MASTER", 9]], REQUEST)


def test_up_and_down() -> None:
    for up in (True, False):
        fields = {"family": 0, "index": 7, "flags": int(up), "change": 1}
        assert rtnl.set_up(7, up=up) == pyroute2s(ifinfmsg, rtnl.RTM_NEWLINK, REQUEST, fields, [])


def test_no_link_local_address_by_itself() -> None:
    mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}  # IN6_ADDR_GEN_MODE_NONE
    by_pyroute2 = link(7, [["IFLA_AF_SPEC", {"attrs": [["AF_INET6", mode]]}]], REQUEST)
    assert rtnl.no_link_local(7) == by_pyroute2


def test_deleting_a_link() -> None:
    assert rtnl.del_link(7) == link(7, [], REQUEST, rtnl.RTM_DELLINK)


# --- addresses -------------------------------------------------------------------------------------------------------

ADDRESSES = {
    "10.0.0.2/24": [["IFA_LOCAL", "10.0.0.2"], ["IFA_ADDRESS", "10.0.0.2"], ["IFA_BROADCAST", "10.0.0.255"]],
    "10.0.0.2/30": [["IFA_LOCAL", "10.0.0.2"], ["IFA_ADDRESS", "10.0.0.2"], ["IFA_BROADCAST", "10.0.0.3"]],
    "10.0.0.2/31": [["IFA_LOCAL", "10.0.0.2"], ["IFA_ADDRESS", "10.0.0.2"]],
    "10.0.0.2/32": [["IFA_LOCAL", "10.0.0.2"], ["IFA_ADDRESS", "10.0.0.2"]],
    "fd00::2/64": [["IFA_ADDRESS", "fd00::2"]],
    "fd00::2/128": [["IFA_ADDRESS", "fd00::2"]],
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses(text: str) -> None:
    address = ip_interface(text)
    v6 = address.version == 6
    fields = {
        "family": socket.AF_INET6 if v6 else socket.AF_INET,
        "prefixlen": address.network.prefixlen,
        "flags": 0x2 if v6 else 0,  # IFA_F_NODAD
        "scope": 0,
        "index": 7,
    }
    added = pyroute2s(ifaddrmsg, rtnl.RTM_NEWADDR, NEW, fields, ADDRESSES[text])
    assert rtnl.new_address(7, address) == added
    deleted = pyroute2s(ifaddrmsg, rtnl.RTM_DELADDR, REQUEST, fields, ADDRESSES[text])
    assert rtnl.del_address(7, address) == deleted


# --- routes ----------------------------------------------------------------------------------------------------------

UNIVERSE, LINK_SCOPE = 0, 253
ROUTES: dict[str, tuple[Route, int | None, int, Attributes]] = {
    "on the link": (
        Route(ip_network("10.0.0.0/24"), dev="eth0"),
        7,
        LINK_SCOPE,
        [["RTA_DST", "10.0.0.0"], ["RTA_OIF", 7]],
    ),
    "default": (
        Route(ip_network("0.0.0.0/0"), via=ip_address("10.0.0.1")),
        None,
        UNIVERSE,
        [["RTA_GATEWAY", "10.0.0.1"]],
    ),
    "all words": (
        Route(ip_network("10.1.0.0/16"), ip_address("10.0.0.1"), "eth0", ip_address("10.0.0.2"), 50),
        7,
        UNIVERSE,
        [
            *(["RTA_DST", "10.1.0.0"], ["RTA_GATEWAY", "10.0.0.1"], ["RTA_OIF", 7]),
            *(["RTA_PREFSRC", "10.0.0.2"], ["RTA_PRIORITY", 50]),
        ],
    ),
    "blackhole": (Route(ip_network("10.1.0.0/16"), kind="blackhole"), None, UNIVERSE, [["RTA_DST", "10.1.0.0"]]),
    "prohibit": (Route(ip_network("10.1.0.0/16"), kind="prohibit"), None, UNIVERSE, [["RTA_DST", "10.1.0.0"]]),
    "IPv6 on the link": (
        Route(ip_network("fd00::/64"), dev="eth0"),
        7,
        UNIVERSE,
        [["RTA_DST", "fd00::"], ["RTA_OIF", 7]],
    ),
    "IPv6 default": (
        Route(ip_network("::/0"), via=ip_address("fd00::1")),
        None,
        UNIVERSE,
        [["RTA_GATEWAY", "fd00::1"]],
    ),
    "IPv6 all words": (
        Route(ip_network("fd01::/48"), ip_address("fd00::1"), "eth0", ip_address("fd00::2"), 50),
        7,
        UNIVERSE,
        [
            *(["RTA_DST", "fd01::"], ["RTA_GATEWAY", "fd00::1"], ["RTA_OIF", 7]),
            *(["RTA_PREFSRC", "fd00::2"], ["RTA_PRIORITY", 50]),
        ],
    ),
    "IPv6 unreachable": (Route(ip_network("fd01::/48"), kind="unreachable"), None, UNIVERSE, [["RTA_DST", "fd01::"]]),
}
KINDS = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8}


@pytest.mark.parametrize("name", ROUTES)
def test_routes(name: str) -> None:
    route, index, scope, attributes = ROUTES[name]
    fields = {
        "family": socket.AF_INET6 if route.dst.version == 6 else socket.AF_INET,
        "dst_len": route.dst.prefixlen,
        "table": 254,
        "proto": 3,
        "scope": scope,
        "type": KINDS[route.kind],
    }
    assert rtnl.new_route(route, index) == pyroute2s(rtmsg, rtnl.RTM_NEWROUTE, NEW, fields, attributes)
    assert rtnl.del_route(route, index) == pyroute2s(rtmsg, rtnl.RTM_DELROUTE, REQUEST, fields, attributes)


def test_every_kind_of_route_that_a_topology_may_name_has_its_number() -> None:
    assert rtnl.ROUTE_KINDS == KINDS


# --- sequence numbers, and the kernel's answers ----------------------------------------------------------------------


def test_numbering_changes_the_header_alone() -> None:
    message = rtnl.set_up(7, up=True)
    for ack, flags in ((False, REQUEST), (True, REQUEST | ACK)):
        numbered = rtnl.numbered(message, 41, ack=ack)
        assert struct.unpack_from("=IHHII", numbered) == (len(message), rtnl.RTM_NEWLINK, flags, 41, 0)
        assert numbered[16:] == message[16:]


CAPPED, ACK_TLVS = 0x100, 0x200


def answer(sequence: int, code: int, words: str | None = None, *, attribute: int = 1) -> bytes:
    """An NLMSG_ERROR as the kernel sends it with NETLINK_CAP_ACK: the code, the request's header, its words."""
    body = struct.pack("=i", -code) + struct.pack("=IHHII", 32, rtnl.RTM_NEWLINK, REQUEST, sequence, 0)
    flags = CAPPED
    if words is not None:
        text = words.encode() + b"\0"
        offset = struct.pack("=HHI", 8, 2, 0)  # NLMSGERR_ATTR_OFFS
        body += offset + struct.pack("=HH", 4 + len(text), attribute) + text + bytes(-len(text) % 4)
        flags |= ACK_TLVS
    return struct.pack("=IHHII", 16 + len(body), 2, flags, sequence, 0) + body


def test_errors_and_acknowledgements_are_told_apart() -> None:
    datagram = answer(1, errno.EEXIST) + answer(2, errno.EINVAL, "Device name too long") + answer(3, 0)
    assert rtnl.errors(datagram) == [(1, errno.EEXIST, ""), (2, errno.EINVAL, "Device name too long"), (3, 0, "")]


def test_an_error_with_nothing_to_say_has_no_words() -> None:
    assert rtnl.errors(answer(1, errno.EPERM, "cookie", attribute=3)) == [(1, errno.EPERM, "")]


def test_words_that_are_not_utf_8_are_told_as_far_as_they_are() -> None:
    datagram = answer(1, errno.EINVAL, "bad ?").replace(b"?", b"\xff")
    assert rtnl.errors(datagram) == [(1, errno.EINVAL, "bad �")]


def test_other_messages_and_torn_ones_are_passed_over() -> None:
    other = struct.pack("=IHHII", 21, rtnl.RTM_NEWLINK, 0, 9, 0) + bytes(8)
    assert rtnl.errors(other + answer(1, errno.EEXIST)) == [(1, errno.EEXIST, "")]
    assert rtnl.errors(answer(1, errno.EEXIST) + bytes(16)) == [(1, errno.EEXIST, "")]
    assert rtnl.errors(answer(1, errno.EEXIST) + b"\x24\0\0\0") == [(1, errno.EEXIST, "")]
    assert rtnl.errors(b"") == []
