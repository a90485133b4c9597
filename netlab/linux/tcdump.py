"""The root qdiscs of the calling thread's network namespace, as the kernel tells them: bytes to compare, not to decode.

Setting them is `tc.py`'s. OSError, EBADMSG for what can't be decoded.
"""

from __future__ import annotations

import struct

from netlab.linux import rtdump

# include/uapi/linux/{rtnetlink,pkt_sched}.h
_RTM_GETQDISC, _RTM_GETTCLASS = 38, 42
_tcmsg = struct.Struct("=BxxxiIII")
_TC_H_ROOT = 0xFFFFFFFF
_TCA_KIND, _TCA_OPTIONS = 1, 2
_NETEM_QOPT_BYTES, _TCA_NETEM_PRNG_SEED = 24, 14
_TCA_HTB_INIT, _HTB_GLOB_BYTES_BEFORE_DIRECT_PKTS = 2, 16


def roots() -> dict[int, tuple[str, str]]:
    """The root qdiscs that someone set, by ifindex: (kind, its options as the kernel tells them, in hex).

    A qdisc that the kernel gave by itself has handle 0 and is left out. Options are text to compare, not to parse.
    """
    found: dict[int, tuple[str, str]] = {}
    with rtdump.rtnetlink() as sock:
        for body in rtdump.dump(sock, _RTM_GETQDISC, _tcmsg.pack(0, 0, 0, 0, 0)):
            _, index, handle, parent, _ = rtdump.header(_tcmsg, body)
            if parent == _TC_H_ROOT and handle:
                found[index] = qdisc(body)
        for index, (kind, options) in found.items():
            if kind == "htb":
                classes = rtdump.dump(sock, _RTM_GETTCLASS, _tcmsg.pack(0, index, 0, 0, 0))
                found[index] = (kind, "+".join((options, *(qdisc(body)[1] for body in classes))))
    return found


def qdisc(body: bytes) -> tuple[str, str]:
    """The kind and the options that a message of a qdisc, or a class, tells of."""
    rtdump.header(_tcmsg, body)
    told = rtdump.attributes(body, _tcmsg.size)
    kind, options = rtdump.string(told.get(_TCA_KIND, b"")), told.get(_TCA_OPTIONS, b"")
    # What differs from one to the next of the same making: netem's random seed, the packets that htb passed over.
    if kind == "netem":
        first, rest = options[:_NETEM_QOPT_BYTES], rtdump.attributes(options, _NETEM_QOPT_BYTES)
        rest.pop(_TCA_NETEM_PRNG_SEED, None)
        return kind, " ".join((first.hex(), *(f"{number}:{value.hex()}" for number, value in rest.items())))
    if kind == "htb":
        rest = rtdump.attributes(options)
        if _TCA_HTB_INIT in rest:
            rest[_TCA_HTB_INIT] = rest[_TCA_HTB_INIT][:_HTB_GLOB_BYTES_BEFORE_DIRECT_PKTS]
        return kind, " ".join(f"{number}:{value.hex()}" for number, value in rest.items())
    return kind, options.hex()
