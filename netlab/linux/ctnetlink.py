"""Single conntrack entries, found, changed and deleted through ctnetlink; what conntrack tells by itself is observed in
`observe/conntrack.py`.

Everything here acts in the calling thread's network namespace. An entry is named by its original direction's Tuple.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from netlab.linux.netlink import (
    NETLINK_NETFILTER,
    NFGENMSG,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSGHDR,
    attribute,
    attributes,
    messages,
)
from netlab.record.events import Tuple

# include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack}.h, netlink.h
_NFNL_SUBSYS_CTNETLINK = 1
_NEW, _GET, _DELETE = (_NFNL_SUBSYS_CTNETLINK << 8 | message for message in (0, 1, 2))
_NLA_F_NESTED = 1 << 15
_CTA_TUPLE_ORIG, _CTA_PROTOINFO = 1, 4
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SRC_DST = {4: (1, 2), 6: (3, 4)}
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTOINFO_TCP, _CTA_WSCALE_ORIGINAL, _CTA_WSCALE_REPLY = 1, 2, 3
_NLMSG_ERROR = 2


def entry(header: Tuple) -> bytes | None:
    """The entry's ctnetlink attributes, for `observe.conntrack.decode_entry`; None where there is none. OSError.

    Equivalent to `conntrack -L -p PROTO -s SRC -d DST --sport SPORT --dport DPORT`.
    """
    return _ask(_GET, header)


def window_scales(header: Tuple) -> tuple[int, int] | None:
    """By how many bits conntrack shifts the windows, of the original direction and of the reply; None as `entry`."""
    told = attributes(entry(header) or b"")
    tcp = attributes(attributes(told.get(_CTA_PROTOINFO, b"")).get(_CTA_PROTOINFO_TCP, b""))
    if _CTA_WSCALE_ORIGINAL not in tcp or _CTA_WSCALE_REPLY not in tcp:
        return None
    return tcp[_CTA_WSCALE_ORIGINAL][0], tcp[_CTA_WSCALE_REPLY][0]


def set_window_scales(header: Tuple, original: int, reply: int) -> bool:
    """Let conntrack shift the windows by so many bits; False where there is no such entry. OSError.

    The kernel passes over an entry whose ends did not both offer window scaling.
    """
    scales = attribute(_CTA_WSCALE_ORIGINAL, bytes([original])) + attribute(_CTA_WSCALE_REPLY, bytes([reply]))
    return _ask(_NEW, header, _nest(_CTA_PROTOINFO, _nest(_CTA_PROTOINFO_TCP, scales))) is not None


def delete(header: Tuple) -> bool:
    """Delete the entry; False where there is none. OSError. Equivalent to `conntrack -D` with the words of `entry`."""
    return _ask(_DELETE, header) is not None


def _ask(message_type: int, header: Tuple, change: bytes = b"") -> bytes | None:
    """What follows the nfgenmsg in the kernel's answer, nothing for a mere acknowledgement; None for no such entry."""
    family = socket.AF_INET if header.src.version == 4 else socket.AF_INET6
    body = NFGENMSG.pack(family, 0, 0) + _tuple(header) + change
    ack = 0 if message_type == _GET else NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netfilter:
        netfilter.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), message_type, NLM_F_REQUEST | ack, 1, 0) + body)
        kind, _, answer = next(messages(netfilter.recv(1 << 16)))
    if kind != _NLMSG_ERROR:
        return answer[NFGENMSG.size :]
    code = -struct.unpack_from("=i", answer)[0]
    if code == errno.ENOENT:
        return None
    if code:
        raise OSError(code, os.strerror(code), "ctnetlink")
    return b""


def _nest(kind: int, body: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, body)


def _tuple(header: Tuple) -> bytes:
    src, dst = _CTA_IP_SRC_DST[header.src.version]
    ip = attribute(src, header.src.packed) + attribute(dst, header.dst.packed)
    proto = (
        attribute(_CTA_PROTO_NUM, bytes([header.proto]))
        + attribute(_CTA_PROTO_SRC_PORT, struct.pack("!H", header.sport))
        + attribute(_CTA_PROTO_DST_PORT, struct.pack("!H", header.dport))
    )
    return _nest(_CTA_TUPLE_ORIG, _nest(_CTA_TUPLE_IP, ip) + _nest(_CTA_TUPLE_PROTO, proto))
