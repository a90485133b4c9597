"""Fuzz targets: what rtnetlink tells in a dump, as the decoders of links, addresses, routes and qdiscs take it."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fuzzing import Target, damaged

from netlab.linux import rtdump, tcdump
from netlab.linux.netlink import attribute

DATA_NUMBERS = {"bridge": frozenset({5, 7, 23})}
BRIDGE = attribute(1, b"bridge\0") + attribute(2, b"".join(attribute(n, bytes([1, 0, 0, 0])) for n in (1, 5, 7, 23)))
LINKS = (
    struct.pack("=BxHiII", 0, 772, 1, 0x10049, 0)
    + attribute(3, b"lo\0")
    + attribute(4, b"\0\0\1\0")
    + attribute(1, bytes(6)),
    struct.pack("=BxHiII", 0, 1, 100, 0x1003, 0)
    + attribute(3, b"cni0\0")
    + b"".join(attribute(n, b"\xdc\5\0\0") for n in (4, 5, 10, 13, 27, 31, 32, 40, 41, 58))
    + attribute(20, b"a\xfflias\0")
    + attribute(18 | 0x8000, BRIDGE),
)
ADDRESSES = (
    struct.pack("=BBBBI", 2, 24, 0x80, 0, 100) + attribute(1, b"\n\0\0\1") + attribute(2, b"\n\0\0\2"),
    struct.pack("=BBBBI", 10, 64, 0, 0, 100) + attribute(1, bytes(16)) + attribute(8, b"\0\2\0\0"),
)
ROUTES = (
    struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 4, 0, 1, 0)
    + attribute(15, b"\xfe\0\0\0")
    + b"".join(attribute(n, b"\n\0\0\1") for n in (1, 4, 5, 6, 7)),
    struct.pack("=BBBBBBBBI", 10, 0, 0, 0, 254, 4, 0, 7, 0) + attribute(5, bytes(16)),
)
QDISCS = (
    struct.pack("=BxxxiIII", 0, 7, 0x10000, 0xFFFFFFFF, 2)
    + attribute(1, b"netem\0")
    + attribute(2, bytes(24) + attribute(14, bytes(8)) + attribute(1, bytes(4))),
    struct.pack("=BxxxiIII", 0, 7, 0x10000, 0xFFFFFFFF, 2)
    + attribute(1, b"htb\0")
    + attribute(2, attribute(2, bytes(20)) + attribute(5, bytes(4))),
)


def _target(name: str, feed: Callable[[bytes], object], seeds: tuple[bytes, ...]) -> Target:
    return Target(name, feed, damaged(seeds), refuses=(OSError,))


TARGETS = (
    _target("rtnetlink-link", lambda body: rtdump.link(body, DATA_NUMBERS), LINKS),
    _target("rtnetlink-address", rtdump.address, ADDRESSES),
    _target("rtnetlink-route", rtdump.route, ROUTES),
    _target("rtnetlink-qdisc", tcdump.qdisc, QDISCS),
)
