"""The server's listening sockets: one at each place that a client may come to, as it may at a Service's endpoints."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from netlab.errors import LabError
from netlab.experiments.roles import Roles, Server
from netlab.model import Address
from netlab.observe import Namespaces

_SEND_BUFFER_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that a listening socket took: where, with whom as its socket sees it, and the socket."""

    server: Server
    peer: tuple[Address, int]
    socket: socket.socket


class Listeners:
    """Listens at every server's place until it is closed; LabError where another program has one of the ports."""

    def __init__(self, roles: Roles, namespaces: Namespaces) -> None:
        self._waiting: list[Accepted] = []
        with ExitStack() as opening:
            self._by_server = {server: opening.enter_context(_listener(server, namespaces)) for server in roles.servers}
            opening.callback(self._refuse)
            self._closing = opening.pop_all()

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, in the servers' order."""
        return list(self._by_server.values())

    def close(self) -> None:
        """Close them, and what came that nobody took."""
        self._closing.close()

    def take(self, address: Address, port: int) -> Accepted | None:
        """The connection of that client's, if it has come; of a masqueraded one its port may tell, or that it is alone.

        Whoever takes it closes its socket.
        """
        self._accept()
        others = [each for each in self._waiting if each.peer[0] != address]
        for found in (*(each for each in self._waiting if each.peer == (address, port)), *_by_port(others, port)):
            self._waiting.remove(found)
            return found
        return None

    def _accept(self) -> None:
        for server, listener in self._by_server.items():
            try:
                own, (host, port, *_) = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            own.setblocking(False)
            self._waiting.append(Accepted(server, (ip_address(host), int(port)), own))

    def _refuse(self) -> None:
        for each in self._waiting:
            each.socket.close()


def _by_port(masqueraded: list[Accepted], port: int) -> list[Accepted]:
    """Those that have another address than the client, which may be it: the one with its port first."""
    return sorted(masqueraded, key=lambda each: each.peer[1] != port)


def _listener(server: Server, namespaces: Namespaces) -> socket.socket:
    """A listening socket, not blocking; LabError where its port is taken."""
    family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
    listener = namespaces.socket(server.netns, family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A program of the lab's that does so too may listen at any address: the kernel prefers who has this one.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Room for a burst that may not leave yet; an accepted socket inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((str(server.address), server.port))
        listener.listen(16)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LabError(
            f"{server.netns}: can't listen on {server.address} port {server.port}: {error.strerror}",
            "the experiment is its own server there: a program of the lab may have that port only by `listen`",
        ) from error
    return listener
