"""datagram: a UDP datagram leaves a namespace; nobody need listen where it goes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netlab.experiments.not_applied import NotApplied
from netlab.experiments.roles import address_of
from netlab.experiments.words import HOST, NETNS, PORT
from netlab.yamlspec.shapes import Fields, Integer, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "a UDP datagram leaves a namespace; its socket stays open until the trial is over"
BYTES = 5
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace that sends it", required=True),
        "to": Key(HOST, "a service, a namespace, or an address", required=True),
        "port": Key(PORT, "the destination port", required=True),
        "bytes": Key(Integer(0, 65000), f"its payload (default {BYTES})"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Send it; NotApplied where there is no way to the destination."""
    to = address_of(context.topology, arguments["to"], context.roles.vip.version)
    if to is None:
        raise NotApplied(f"an address of {arguments['to']}, to send a datagram to")
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    sock = context.namespaces.socket(arguments["in"], family, socket.SOCK_DGRAM)
    context.undo(sock.close)
    try:
        sock.connect((str(to), arguments["port"]))
        # What an earlier one was answered with, an ICMP error, is not this one's.
        with suppress(ConnectionRefusedError):
            sock.send(bytes(arguments.get("bytes", BYTES)))
    except OSError as error:
        raise NotApplied(f"a way from {arguments['in']} to {to} port {arguments['port']}: {error.strerror}") from None
