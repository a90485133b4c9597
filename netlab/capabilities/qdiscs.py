"""Queueing disciplines, by adding one to lo. A topology's own are `linux/tc.py`'s; loading pyroute2 for it takes
longer than all probes together.
"""

from __future__ import annotations

import os
import socket
import struct

from netlab.errors import UnsupportedError
from netlab.linux.netlink import NLM_F_ACK, NLM_F_REQUEST, NLMSGHDR, attribute
from netlab.linux.rtnl import NLM_F_CREATE, NLM_F_EXCL, errors

# include/uapi/linux/{rtnetlink,pkt_sched}.h
_RTM_NEWQDISC, _TCA_KIND, _TCA_OPTIONS = 36, 1, 2
_TCMSG, _TC_H_ROOT, _HANDLE = struct.Struct("=BxxxiIII"), 0xFFFFFFFF, 0x10000
_LOOPBACK_IFINDEX = 1

_OPTIONS = {
    # TCA_TBF_PARMS, struct tc_tbf_qopt with 125,000 bytes/s and a limit of 16 KiB; TCA_TBF_BURST in bytes.
    "tbf": attribute(1, struct.pack("=8xI12x3I", 125_000, 16_384, 0, 0)) + attribute(6, struct.pack("=I", 16_384)),
    # TCA_HTB_INIT, struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts.
    "htb": attribute(2, struct.pack("=5I", 3, 10, 0x10, 0, 0)),
    # struct tc_netem_qopt: latency in ticks, limit in packets, loss, gap, duplicate, jitter.
    "netem": struct.pack("=6I", 10_000, 1000, 0, 0, 0, 0),
}
KINDS = tuple(_OPTIONS)


def add(kind: str) -> str:
    """Equivalent to `tc qdisc add dev lo root handle 1: KIND …`, one of KINDS. UnsupportedError if refused."""
    body = _TCMSG.pack(socket.AF_UNSPEC, _LOOPBACK_IFINDEX, _HANDLE, _TC_H_ROOT, 0)
    body += attribute(_TCA_KIND, kind.encode() + b"\0") + attribute(_TCA_OPTIONS, _OPTIONS[kind])
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnl:
        rtnl.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), _RTM_NEWQDISC, flags, 1, 0) + body)
        [(_, code, _)] = errors(rtnl.recv(1 << 16))
    if code:
        raise UnsupportedError(f"qdisc {kind} can't be added: {os.strerror(code)}")
    return f"qdisc {kind} can be added"
