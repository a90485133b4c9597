"""Our decoder says of a dump what pyroute2 says of the same bytes; and of bytes that are none, that they aren't."""

from __future__ import annotations

import errno
import random
import socket
import struct
import subprocess
from ipaddress import ip_address
from typing import Any

import pytest
from fuzz_rtnetlink import ADDRESSES, DATA_NUMBERS, LINKS, QDISCS, ROUTES
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netlab.linux import netlink, rtdump, tcdump
from netlab.linux.netlink import NLMSGHDR, attribute
from netlab.linux.rtdump import Address, Link, Route
from netlab.linux.syscalls import CLONE_NEWNET, unshare

NUMBERS = {"IFLA_BR_STP_STATE": 5, "IFLA_BR_VLAN_FILTERING": 7, "IFLA_BR_MCAST_SNOOPING": 23}


def ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def things(seed: int) -> list[str]:
    """Commands that make links, addresses and routes of many kinds."""
    dice = random.Random(seed)
    commands = ["link set lo up"]
    for number in range(3):
        mtu, queues = dice.choice([1280, 1400, 1500, 9000]), dice.randint(1, 4)
        more = f"mtu {mtu} numtxqueues {queues} txqueuelen {dice.randint(0, 2000)}"
        commands.append(f"link add a{number} {more} type veth peer name b{number}")
        commands.append(f"link set a{number} alias '{dice.choice(['x', 'a b', 'é', 'z' * 200])}' group {number}")
        commands.append(f"link set a{number} gso_max_size {dice.randint(2000, 65536)} gso_max_segs 7")
    stp, snooping = dice.randint(0, 1), dice.randint(0, 1)
    commands.append(f"link add br0 type bridge stp_state {stp} mcast_snooping {snooping}")
    commands += ["link set b0 master br0", "link set b0 up", "link set br0 up", "link set a0 up"]
    commands += ["addr add 10.0.0.1/24 dev a0", "addr add 10.0.0.9/24 dev a0 noprefixroute"]
    commands += ["addr add 10.9.9.1 peer 10.9.9.2/32 dev br0", "addr add 2001:db8::1/64 dev a0 nodad"]
    commands += ["addr add 2001:db8:1::1/64 dev a0 nodad noprefixroute"]
    for number in range(20):
        to = f"198.51.{number}.0/{dice.choice([24, 25, 32])}"
        metric = dice.choice(["", f" metric {dice.randint(1, 5000)}"])
        commands.append(
            "route add "
            + dice.choice([f"{to} via 10.0.0.{2 + number}{metric} src 10.0.0.1", f"blackhole {to}{metric}"])
            + dice.choice(["", "", " table 100", " proto static"])
        )
        commands.append(
            "route add "
            + dice.choice(
                [f"2001:db8:{number + 9}::/48 dev a0{metric}", f"prohibit 2001:db8:{number + 9}::/48{metric}"]
            )
        )
    commands += ["route add default via 10.0.0.2", "route add 203.0.113.0/24 nexthop via 10.0.0.2 nexthop via 10.0.0.3"]
    return commands


def pyroute2s(kind: Any, body: bytes) -> Any:
    message = kind(NLMSGHDR.pack(NLMSGHDR.size + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def link_of(body: bytes) -> Link:
    message = pyroute2s(ifinfmsg, body)
    info = message.get_attr("IFLA_LINKINFO")
    data = info and info.get_attr("IFLA_INFO_DATA")
    kind = (info and info.get_attr("IFLA_INFO_KIND")) or ""
    return Link(
        message["index"],
        message.get_attr("IFLA_IFNAME"),
        kind,
        bool(message["flags"] & 1),
        message.get_attr("IFLA_MASTER"),
        message.get_attr("IFLA_LINK"),
        message.get_attr("IFLA_ADDRESS"),
        message.get_attr("IFLA_MTU"),
        message.get_attr("IFLA_TXQLEN"),
        message.get_attr("IFLA_IFALIAS"),
        message.get_attr("IFLA_GROUP"),
        message.get_attr("IFLA_NUM_TX_QUEUES"),
        message.get_attr("IFLA_NUM_RX_QUEUES"),
        message.get_attr("IFLA_GSO_MAX_SEGS"),
        message.get_attr("IFLA_GSO_MAX_SIZE"),
        message.get_attr("IFLA_GRO_MAX_SIZE"),
        tuple(sorted((NUMBERS[name], value) for name, value in data["attrs"] if name in NUMBERS))
        if kind == "bridge"
        else (),
    )


def address_of(body: bytes) -> Address:
    message = pyroute2s(ifaddrmsg, body)
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    prefix_route = not (message.get_attr("IFA_FLAGS") or 0) & 0x200
    return Address(message["index"], ip_address(text).packed, message["prefixlen"], prefix_route)


def route_of(body: bytes) -> Route | None:
    message = pyroute2s(rtmsg, body)
    if message.get_attr("RTA_TABLE", message["table"]) != 254 or message["proto"] in (2, 9):
        return None
    packed = {
        name: ip_address(text).packed
        for name in ("RTA_DST", "RTA_GATEWAY", "RTA_PREFSRC")
        if (text := message.get_attr(name)) is not None
    }
    return Route(
        packed.get("RTA_DST", bytes(4 if message["family"] == socket.AF_INET else 16)),
        message["dst_len"],
        message["type"],
        packed.get("RTA_GATEWAY"),
        message.get_attr("RTA_OIF"),
        packed.get("RTA_PREFSRC"),
        message.get_attr("RTA_PRIORITY"),
    )


@pytest.mark.kernel
@pytest.mark.parametrize("seed", range(5))
def test_a_dump_means_what_pyroute2_takes_it_for(own_netns: None, seed: int) -> None:
    ip(*things(seed))
    with rtdump.rtnetlink() as sock:
        links = rtdump.dump(sock, rtdump.RTM_GETLINK, rtdump.LINKS)
        addresses = rtdump.dump(sock, rtdump.RTM_GETADDR, rtdump.ADDRESSES)
        routes = rtdump.dump(sock, rtdump.RTM_GETROUTE, rtdump.ROUTES)
    assert [rtdump.link(body, DATA_NUMBERS) for body in links] == [link_of(body) for body in links]
    assert [rtdump.address(body) for body in addresses] == [address_of(body) for body in addresses]
    assert [rtdump.route(body) for body in routes] == [route_of(body) for body in routes]
    assert min(len(links), len(addresses), len(routes)) > 5


@pytest.mark.kernel
def test_all_is_told_whether_or_not_the_kernel_heeds_what_is_asked_for(
    own_netns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip(*things(7))
    strict = rtdump.told(DATA_NUMBERS)
    monkeypatch.setattr(rtdump, "_NETLINK_GET_STRICT_CHK", 9999)  # as before Linux 5.0: the whole of every table
    assert rtdump.told(DATA_NUMBERS) == strict
    assert {link.ifname for link in strict.links} == {"lo", "a0", "a1", "a2", "b0", "b1", "b2", "br0"}


@pytest.mark.kernel
def test_a_namespaces_number_is_its_own(own_netns: None) -> None:
    first = rtdump.told({}).cookie
    assert rtdump.told({}).cookie == first
    unshare(CLONE_NEWNET)
    assert rtdump.told({}).cookie not in (0, first)


@pytest.mark.parametrize(
    ("decode", "bodies", "header_bytes"),
    [
        (lambda body: rtdump.link(body, DATA_NUMBERS), LINKS, 16),
        (rtdump.address, ADDRESSES, 8),
        (rtdump.route, ROUTES, 12),
        (tcdump.qdisc, QDISCS, 20),
    ],
    ids=["link", "address", "route", "qdisc"],
)
def test_what_is_cut_short_is_refused_or_lacks_whole_attributes(
    decode: Any, bodies: tuple[bytes, ...], header_bytes: int
) -> None:
    for body in bodies:
        decode(body)
        for length in range(len(body)):
            try:
                decode(body[:length])
            except OSError as error:
                assert (error.errno, error.filename) == (errno.EBADMSG, "rtnetlink")
            else:
                assert length >= header_bytes


@pytest.mark.parametrize(
    "decode_odd",
    [
        lambda: rtdump.link(struct.pack("=BxHiII", 0, 1, 5, 0, 0), {}),
        lambda: rtdump.link(struct.pack("=BxHiII", 0, 1, 5, 0, 0) + attribute(3, b"a\0") + attribute(4, b"abc"), {}),
        lambda: rtdump.address(struct.pack("=BBBBI", 2, 33, 0, 0, 1) + attribute(2, bytes(4))),
        lambda: rtdump.address(struct.pack("=BBBBI", 2, 24, 0, 0, 1) + attribute(2, bytes(16))),
        lambda: rtdump.address(struct.pack("=BBBBI", 2, 24, 0, 0, 1)),
        lambda: rtdump.route(struct.pack("=BBBBBBBBI", 10, 129, 0, 0, 254, 4, 0, 1, 0)),
        lambda: rtdump.route(struct.pack("=BBBBBBBBI", 2, 8, 0, 0, 254, 4, 0, 1, 0) + attribute(5, b"")),
    ],
    ids=["nameless", "number-of-3-bytes", "prefix-33", "ipv4-of-16-bytes", "no-address", "prefix-129", "empty-gateway"],
)
def test_what_no_kernel_says_is_refused(decode_odd: Any) -> None:
    with pytest.raises(OSError, match="Bad message: 'rtnetlink'"):
        decode_odd()


class Answers:
    """A socket whose kernel answers with these datagrams."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)

    def send(self, _request: bytes) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        return self.datagrams.pop(0)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, 1, 0) + body


DONE, INTERRUPTED = 3, 0x10


def test_a_dump_that_something_changed_under_is_asked_for_again() -> None:
    changed = message(16, b"old.", INTERRUPTED) + message(DONE, bytes(4), INTERRUPTED)
    answers: Any = Answers(changed, changed, message(16, b"new."), message(DONE, bytes(4)))
    assert rtdump.dump(answers, rtdump.RTM_GETLINK, b"") == [b"new."]


def test_a_dump_that_never_comes_to_rest_is_an_error() -> None:
    changed = message(DONE, bytes(4), INTERRUPTED)
    answers: Any = Answers(*[changed] * 100)
    with pytest.raises(InterruptedError):
        rtdump.dump(answers, rtdump.RTM_GETLINK, b"")
    assert len(answers.datagrams) == 80


def test_a_dump_that_fails_midway_is_no_short_one() -> None:
    answers: Any = Answers(message(16, b"one.") + message(DONE, struct.pack("=i", -errno.EMSGSIZE)))
    with pytest.raises(OSError, match="Message too long"):
        netlink.dumped(answers, rtdump.RTM_GETLINK, b"")
