"""passive-ftp: an FTP dialogue on the connection announces a data connection, which the client then opens.

RFC 959, section 4.1.2 (PASV), over IPv6 RFC 2428, section 3 (EPSV).
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from netlab.experiments.experiment import FIRST
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import CONNECTION, PORT
from netlab.model import Address
from netlab.yamlspec.shapes import Fields, Key

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "on the connection, whose programs neither read nor write from then on, the server greets, the client asks for a "
    "passive data connection and opens it to where the answer says it is, and the server sends a line through it"
)
DATA_PORT = 30000
ARGUMENTS = Fields(
    {
        "data_port": Key(PORT, f"the server's port of the data connection (default {DATA_PORT})"),
        "connection": Key(CONNECTION, "which connection (default first)"),
    }
)
_TIMEOUT_S = 3.0
_LISTING = b"README\r\n"
_PASSIVE = re.compile(rb"227 [^(]*\((\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\)")
_EXTENDED_PASSIVE = re.compile(rb"229 [^(]*\(\|\|\|(\d+)\|\)")


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Run both sides; NotApplied where a line, or the data connection, doesn't come through."""
    client, server = (context.end(end, arguments.get("connection", FIRST)) for end in ("client", "server"))
    client.reads = server.reads = False
    roles, port = context.roles, arguments.get("data_port", DATA_PORT)
    extended = roles.vip.version == 6
    family = socket.AF_INET6 if extended else socket.AF_INET
    listener = context.namespaces.socket(roles.server, family, socket.SOCK_STREAM)
    context.undo(listener.close)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(roles.endpoint), port))
    listener.listen(1)
    listener.setblocking(False)
    # The helper reads a line only after it has seen the end of the one before it (find_nl_seq, nf_conntrack_ftp.c).
    _say(context, server.socket, client.socket, b"220 netlab\r\n")
    _say(context, client.socket, server.socket, b"EPSV\r\n" if extended else b"PASV\r\n")
    answer = _say(context, server.socket, client.socket, _announcement(roles.endpoint, port))
    address, told_port = _announced(answer, roles.vip)
    opened = context.namespaces.socket(roles.client, family, socket.SOCK_STREAM)
    context.undo(opened.close)
    opened.setblocking(False)
    begun = opened.connect_ex((str(address), told_port))
    if begun not in (0, errno.EINPROGRESS):
        raise NotApplied(f"a data connection to {address} port {told_port}: {errno.errorcode[begun]}")
    accepted: list[socket.socket] = []

    def accept() -> bool:
        try:
            accepted.append(listener.accept()[0])
        except BlockingIOError:
            return False
        return True

    if not context.wait(accept, _TIMEOUT_S):
        raise NotApplied(f"a data connection to {address} port {told_port}, at {roles.endpoint} port {port}")
    (sender,) = accepted
    context.undo(sender.close)
    _say(context, sender, opened, _LISTING)


def _announcement(endpoint: Address, port: int) -> bytes:
    """The server's answer, with its own address: what lies between makes of it what it must."""
    if endpoint.version == 6:
        return f"229 Entering Extended Passive Mode (|||{port}|)\r\n".encode()
    numbers = [*endpoint.packed, port >> 8, port & 0xFF]
    return f"227 Entering Passive Mode ({','.join(map(str, numbers))})\r\n".encode()


def _announced(answer: bytes, vip: Address) -> tuple[Address, int]:
    """Where the client is told to connect to; an extended answer has the port alone, of the address it talks to."""
    if found := _EXTENDED_PASSIVE.match(answer):
        return vip, int(found[1])
    if found := _PASSIVE.match(answer):
        numbers = [int(number) for number in found.groups()]
        return ip_address(bytes(numbers[:4])), numbers[4] << 8 | numbers[5]
    raise NotApplied(f"an announcement of a data connection: the client got {answer!r}")


def _say(context: Context, speaker: socket.socket, hearer: socket.socket, line: bytes) -> bytes:
    """Send a line, and return it as it came to the other end."""
    heard = b""

    def hear() -> bool:
        nonlocal heard
        try:
            heard += hearer.recv(1024)
        except BlockingIOError:
            return False
        return heard.endswith(b"\r\n")

    speaker.setblocking(False)
    try:
        speaker.send(line)
        if not context.wait(hear, _TIMEOUT_S):
            raise NotApplied(f"the line {line!r} at the other end: {heard!r} came")
    except OSError as error:
        raise NotApplied(f"the line {line!r} at the other end: {error.strerror}") from None
    return heard
