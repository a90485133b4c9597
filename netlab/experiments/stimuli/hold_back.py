"""hold-back: one segment waits at an interface on its way while all others pass, as in an overloaded fabric.

It must wait past the sender's own host: TCP sends no segment again whose original still waits in its host's queue
(skb_still_in_host_queue(), net/ipv4/tcp_output.c).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.errors import unsupported
from netlab.experiments.experiment import FIRST
from netlab.experiments.words import CONNECTION, COUNT, END, LINK
from netlab.linux.tcp_repair import next_numbers
from netlab.yamlspec.shapes import Fields, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "one segment of one end waits in a class of its own (htb) at an interface that it passes; a copy of it doesn't"
FOR_S = 0.5
ARGUMENTS = Fields(
    {
        "link": Key(LINK, "the interface of a namespace that forwards it", required=True),
        "from": Key(END, "whose segment", required=True),
        "after_bytes": Key(
            COUNT, "the first that begins so many bytes past what that end has sent, or more (default 0)"
        ),
        "for_s": Key(Seconds(), f"until when, counted from this step (default {FOR_S:g})"),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    }
)
_TABLE = "netlab_hold_back"
_FAR = 2**30
_ETH_P_802_EX1 = 0x88B5
"""For local experiments (include/uapi/linux/if_ether.h): whoever gets such a frame ignores it."""
_FILLER_BYTES = 1000


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Add the class, the rule that puts the segment there, and what keeps the class busy meanwhile.

    NotApplied where the interface has a qdisc already, UnsupportedError without htb or repair mode.
    """
    from netlab.experiments.forwarded import pick
    from netlab.experiments.qdiscs import add_slow_class
    from netlab.linux.tc import SLOW_CLASS, SLOW_PRIORITY

    netns, _, ifname = arguments["link"].partition(":")
    with unsupported("can't ask a socket for its sequence numbers"):
        seq, _ = next_numbers(context.end(arguments["from"], arguments.get("connection", FIRST)).socket)
    first = (seq + arguments.get("after_bytes", 0)) & 0xFFFFFFFF
    add_slow_class(context, arguments["link"], _FILLER_BYTES / arguments.get("for_s", FOR_S))
    # The second in that range finds the count at 1: it passes, as a copy of the first does.
    match = f"tcp sequence {{ {_range(first)} }} numgen inc mod {_FAR} 0"
    pick(context, netns, arguments["from"], _TABLE, f"{match} meta priority set {SLOW_CLASS}")
    with context.namespaces.socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0) as packets:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, SLOW_PRIORITY)
        packets.bind((ifname, _ETH_P_802_EX1))
        packets.send(bytes(12) + _ETH_P_802_EX1.to_bytes(2, "big") + bytes(_FILLER_BYTES - 14))


def _range(first: int) -> str:
    """The sequence numbers from first on, for nft's set: they begin anew at 2**32."""
    last = first + _FAR - 1
    return f"{first}-{last}" if last < 2**32 else f"{first}-{2**32 - 1}, 0-{last - 2**32}"
