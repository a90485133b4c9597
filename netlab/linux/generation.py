"""How often the rules of the calling thread's network namespace have changed: nftables' own count."""

from __future__ import annotations

import socket

from netlab.linux.netlink import NETLINK_NETFILTER, NFGENMSG, NLM_F_REQUEST, NLMSGHDR, attributes, messages

# include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = (_NFNL_SUBSYS_NFTABLES << 8 | message for message in (15, 16))
_NFTA_GEN_ID = 1

FIRST = 1
"""The count of a namespace whose rules nobody has touched (nf_tables_init_net() in net/netfilter/nf_tables_api.c)."""


def generation() -> int | None:
    """The count: each transaction, whoever's, adds 1. None where the kernel doesn't tell.

    What packets do (counters, elements of dynamic sets) and what time does (elements that run out) doesn't count.
    """
    request = NLMSGHDR.pack(NLMSGHDR.size + NFGENMSG.size, _NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netfilter:
            netfilter.send(request + NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))
            answer = netfilter.recv(1 << 16)
    except OSError:
        return None
    for kind, _, body in messages(answer):
        told = attributes(body[NFGENMSG.size :]).get(_NFTA_GEN_ID, b"")
        if kind == _NFT_MSG_NEWGEN and len(told) == 4:
            return int.from_bytes(told, "big")
    return None
