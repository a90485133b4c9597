"""Queueing disciplines: rare and intricate, so pyroute2 encodes them.

Everything here acts in the calling thread's network namespace, and raises OSError: FileNotFoundError where the kernel
lacks the discipline.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any


def _mend_pyroute2() -> None:
    """Teach pyroute2 0.9 bfifo, fifos without a limit (it would make that 0), and tbf's peak rate (it drops that)."""
    from types import SimpleNamespace

    from pyroute2.netlink.rtnl import TC_H_ROOT
    from pyroute2.netlink.rtnl.tcmsg import plugins, sched_pfifo, sched_tbf
    from pyroute2.netlink.rtnl.tcmsg.common import calc_xmittime, get_rate_parameters

    def fifo(words: dict[str, Any]) -> dict[str, Any] | None:
        return {"limit": words["limit"]} if "limit" in words else None

    def tbf(words: dict[str, Any]) -> dict[str, Any]:
        parameters = get_rate_parameters(words)
        tables = [["TCA_TBF_RTAB", True]]
        if "peak" in words:
            parameters |= {"peak": words["peak"], "mtu": calc_xmittime(words["peak"], words["mtu"])}
            tables.append(["TCA_TBF_PTAB", True])
        return {"attrs": [["TCA_TBF_PARMS", parameters], *tables]}

    for kind in ("pfifo", "bfifo"):
        plugins[kind] = SimpleNamespace(parent=TC_H_ROOT, options=sched_pfifo.options, get_parameters=fifo)
    plugins["tbf"] = SimpleNamespace(
        parent=TC_H_ROOT, options=sched_tbf.options, get_parameters=tbf, fix_request=sched_tbf.fix_request
    )


def replace_root(index: int, kind: str, arguments: Mapping[str, Any]) -> None:
    """Equivalent to `tc qdisc replace dev IFNAME root KIND …` (htb: with one class that takes all traffic).

    arguments are pyroute2's: bytes, bytes a second, microseconds, percent.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    _mend_pyroute2()
    with IPRoute() as ipr:
        try:
            if kind == "htb":
                ipr.tc("replace", "htb", index=index, handle=0x10000, default=1)
                ipr.tc("replace-class", "htb", index=index, handle=0x10001, parent=0x10000, **arguments)
            else:
                ipr.tc("replace", kind, index=index, handle=0x10000, **arguments)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code), kind) from error
        except Exception as error:  # pyroute2 has no class of its own for words that don't go together
            raise OSError(errno.EINVAL, f"{os.strerror(errno.EINVAL)}: {error}") from error


SLOW_CLASS, SLOW_PRIORITY = "1:2", 0x10002
"""The class of `add_slow_class`, as nft's `meta priority set` and SO_PRIORITY name it: htb goes by that first."""


def add_slow_class(index: int, bytes_per_s: float, limit: int | None = None) -> None:
    """Give an interface without a qdisc a class of so few bytes a second, and one that takes all that isn't put there.

    A packet that finds the slow class unused leaves at once, and those after it wait until its bytes are made up for:
    limit of them at most, or as many as the interface's transmit queue is long.
    Equivalent to `tc qdisc add dev IFNAME root handle 1: htb default 1`, and `tc class add dev IFNAME parent 1: classid
    …` with `1:1 htb rate 10gbit` and `1:2 htb rate RATE burst 1 cburst 1`.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    fast, slow = 10 * 10**9 // 8, max(int(bytes_per_s), 1)
    with IPRoute() as ipr:
        try:
            ipr.tc("add", "htb", index=index, handle=0x10000, default=1)
            ipr.tc("add-class", "htb", index=index, handle=0x10001, parent=0x10000, rate=fast, burst=1 << 17)
            ipr.tc("add-class", "htb", index=index, handle=0x10002, parent=0x10000, rate=slow, burst=1, cburst=1)
            if limit is not None:
                ipr.tc("add", "pfifo", index=index, handle=0x20000, parent=0x10002, limit=limit)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code), "htb") from error


def delete_root(index: int) -> None:
    """Equivalent to `tc qdisc del dev IFNAME root`; OSError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ipr:
        try:
            ipr.tc("del", index=index, parent=0xFFFFFFFF)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error
