"""The words that stimuli and conditions have in common: the shapes of their arguments. Pure.

What is read with NETNS or LINK is looked up in the topology too, so that a document's typing errors show at `lint`.
"""

from __future__ import annotations

from collections.abc import Iterable

from netlab.experiments.experiment import PAYLOAD_MAX_BYTES
from netlab.links.words import ifname as check_ifname
from netlab.record.events import ACK, FIN, PSH, RST, SYN
from netlab.topology import words
from netlab.yamlspec.shapes import Choice, Fields, Integer, InvalidError, Key, ListOf, Text

END = Choice("an end of the connection", ("client", "server"))
"""Who does it: the program at that end."""

NETNS = Text("a namespace's name")

TRACKER = Text("the name of a namespace that tracks")
"""Read with this, a namespace must have rules that make it track connections."""


def _link(text: str) -> str:
    netns, colon, ifname = text.partition(":")
    if not colon or not netns:
        raise InvalidError(f"{text!r} names no interface", "NAMESPACE:INTERFACE, for instance server-node:eth0")
    check_ifname(ifname)
    return text


LINK = Text("an interface (server-node:eth0)", _link)

HOST = Text("a service, a namespace, or an address")
"""Read with this, a name is looked up among the services and the namespaces."""

PORT = Integer(1, 65535)

CONNECTION = Text("a connection's name", words.connection_name, words.LABEL)

BYTES = Integer(1, PAYLOAD_MAX_BYTES)

COUNT = Integer(0, 2**31)

OFFSET = Integer(-(2**31) + 1, 2**31 - 1)
"""How far one sequence number is from another, in bytes."""

NUMBER = Integer(0, 2**32 - 1)
"""A sequence number."""

_FLAGS = {"SYN": SYN, "ACK": ACK, "FIN": FIN, "RST": RST, "PSH": PSH}
FLAGS = ListOf(Choice("a TCP flag", tuple(_FLAGS)), single=True)


def flag_bits(names: Iterable[str]) -> int:
    """The bits of the flags of these names."""
    return sum({_FLAGS[name] for name in names})


END_ARGUMENTS = Fields(
    {
        "end": Key(END, "which end's program", required=True),
        "connection": Key(CONNECTION, "of which connection (default first)"),
    },
    lambda text: {"end": text},
    "client or server",
)
"""What a stimulus says that an end's program does: `stop-reading: client`."""
