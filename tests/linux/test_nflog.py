"""NFLOG's messages as values."""

from __future__ import annotations

import struct

from netlab.linux import nflog
from netlab.linux.netlink import NFGENMSG, NLMSGHDR, attribute

# include/uapi/linux/netfilter/nfnetlink_log.h
PACKET, OTHER = 4 << 8 | 0, 4 << 8 | 1
TIMESTAMP, INDEV, PAYLOAD, PREFIX, SEQ = 3, 4, 9, 10, 12


def message(kind: int, *attributes: bytes) -> bytes:
    """A netlink message of netfilter's with these attributes."""
    body = NFGENMSG.pack(2, 0, 0) + b"".join(attributes)
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, 0, 0, 0) + body


def test_a_message_has_all_that_the_kernel_told() -> None:
    data = message(
        PACKET,
        attribute(PREFIX, b"nf_ct_proto_6: why\0"),
        attribute(PAYLOAD, b"packet"),
        attribute(INDEV, struct.pack("!I", 7)),
        attribute(TIMESTAMP, struct.pack("!QQ", 1_700_000_000, 123_456)),
        attribute(SEQ, struct.pack("!I", 41)),
    )
    assert list(nflog.lines(data)) == [
        nflog.Line("nf_ct_proto_6: why", b"packet", 7, 1_700_000_000_123_456_000, 41),
    ]


def test_what_the_kernel_did_not_tell_is_left_open_and_other_messages_are_passed_over() -> None:
    data = message(OTHER, attribute(PREFIX, b"no\0")) + message(PACKET) + message(PACKET, attribute(PREFIX, b"\xff\0"))
    assert list(nflog.lines(data)) == [
        nflog.Line("", b"", 0, None, None),
        nflog.Line("\N{REPLACEMENT CHARACTER}", b"", 0, None, None),
    ]
