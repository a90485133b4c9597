"""The words that stimuli and conditions have in common: the shapes of their arguments. Pure.

What is read with NETNS or LINK is looked up in the topology too, so that a document's typing errors show at `lint`.
"""

from __future__ import annotations

from netlab.topology import words
from netlab.topology.shapes import Choice, Fields, Integer, InvalidError, Key, Text

END = Choice("an end of the connection", ("client", "server"))
"""Who does it: the program at that end."""

NETNS = Text("a namespace's name")


def _link(text: str) -> str:
    netns, colon, ifname = text.partition(":")
    if not colon or not netns:
        raise InvalidError(f"{text!r} names no interface", "NAMESPACE:INTERFACE, for instance server-node:eth0")
    words.ifname(ifname)
    return text


LINK = Text("an interface (server-node:eth0)", _link)

CONNECTION = Text("a connection's name", words.port_name, words.LABEL)

BYTES = Integer(1, 2**40)

COUNT = Integer(0, 2**31)

END_ARGUMENTS = Fields(
    {
        "end": Key(END, "which end's program", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    },
    lambda text: {"end": text},
    "client or server",
)
"""What a stimulus says that an end's program does: `stop-reading: client`."""
