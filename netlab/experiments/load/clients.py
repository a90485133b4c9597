"""The clients of a load: so many connections at a time, each of which asks, reads, checks each byte, and closes."""

from __future__ import annotations

import errno
import heapq
import os
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from netlab.experiments.connection import CHUNK_BYTES, REQUEST
from netlab.experiments.load.process import TICK_S, Loop
from netlab.experiments.roles import Roles
from netlab.lab.netns import Namespaces
from netlab.linux.deadlines import scaled

_TRIES = 1000
"""How often the kernel is asked for a port that no other connection of the load has had."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a load: how many connections, how many at a time, and for how long at most.

    The first ones have `own_ports` as the client's. Of a hundred clients `pausing_percent` stop reading halfway for
    pause_s.
    """

    connections: int
    parallel: int
    timeout_s: float
    own_ports: range
    pausing_percent: int = 0
    pause_s: float = 0.0


class _Client:
    """One client's connection."""

    def __init__(self, sock: socket.socket, pauses_at: int | None) -> None:
        self.sock, self.pauses_at = sock, pauses_at
        self.port = 0
        self.received_bytes = 0
        self.asked = self.ended = False
        self.intact = True
        self.began = time.monotonic()

    def tell(self, error: tuple[int, int] | None = None) -> tuple[object, ...]:
        """What is told of it when it is over, or given up."""
        took_s = time.monotonic() - self.began
        return (self.port, self.received_bytes, self.intact, self.ended, took_s, error)


class Clients:
    """Keeps so many connections open at a time, until all were; each asks, reads, checks, and closes."""

    def __init__(self, roles: Roles, namespaces: Namespaces, payload: bytes, demand: Demand) -> None:
        self._roles, self._namespaces, self._demand = roles, namespaces, demand
        self._payload = memoryview(payload)
        self._live: dict[socket.socket, _Client] = {}
        self._paused: list[tuple[float, int, _Client]] = []
        self._over: list[tuple[object, ...]] = []
        self._ports: set[int] = set(demand.own_ports)

    def run(self, pipe: int) -> NoReturn:
        """Connect until all are over, time is, or it is told to end; then tell of each what `_Client.tell` has."""
        with self._namespaces.inside(self._roles.client):
            self._loop = Loop()
            deadline = time.monotonic() + scaled(self._demand.timeout_s)
            waiting = iter(range(self._demand.connections))
            left = True
            while (left or self._live) and not self._loop.ending and time.monotonic() < deadline:
                if left:
                    left = self._open(waiting)
                self._resume()
                for key, _ in self._loop.selector.select(self._patience_s()):
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(self._live[key.fileobj])
        self._loop.tell(pipe, self._over + [client.tell() for client in self._live.values()])

    def _open(self, waiting: Iterator[int]) -> bool:
        """Open as many as there is room for; whether some are left that can be."""
        room = self._demand.parallel - len(self._live)
        numbers = list(islice(waiting, room))
        try:
            for number in numbers:
                self._begin(number)
        except OSError:  # no port: that fewer began than were to is told
            return False
        return len(numbers) == room

    def _begin(self, number: int) -> None:
        """Begin one; OSError where it gets no port."""
        roles, demand = self._roles, self._demand
        family = socket.AF_INET if roles.vip.version == 4 else socket.AF_INET6
        own_port = demand.own_ports[number] if number < len(demand.own_ports) else None
        sock = self._bound(family) if own_port is None else socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        # Evenly among them: the first of them, too, where any does.
        pauses = number * demand.pausing_percent % 100 < demand.pausing_percent
        client = _Client(sock, len(self._payload) // 2 if pauses else None)
        if own_port is not None:
            sock.bind(("", own_port))
        begun = sock.connect_ex((str(roles.vip), roles.port))
        client.port = sock.getsockname()[1]
        if begun not in (0, errno.EINPROGRESS):
            self._over.append(client.tell((time.time_ns(), begun)))
            sock.close()
            return
        self._live[sock] = client
        self._loop.selector.register(sock, selectors.EVENT_WRITE)

    def _bound(self, family: int) -> socket.socket:
        """A socket with a port that no other connection of this load has had: connections are told apart by it.

        The server closes first, so a client's port is free again at once, and the kernel may pick it again. OSError
        where there is none, as with a small net.ipv4.ip_local_port_range.
        """
        for _ in range(_TRIES):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.bind(("", 0))
            except OSError:
                sock.close()
                raise
            port = int(sock.getsockname()[1])
            if port not in self._ports:
                self._ports.add(port)
                return sock
            sock.close()
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    def _patience_s(self) -> float:
        return min(TICK_S, max(0.0, self._paused[0][0] - time.monotonic())) if self._paused else TICK_S

    def _resume(self) -> None:
        while self._paused and self._paused[0][0] <= time.monotonic():
            _, _, client = heapq.heappop(self._paused)
            self._loop.selector.register(client.sock, selectors.EVENT_READ)

    def _serve(self, client: _Client) -> None:
        try:
            if not client.asked:
                client.sock.send(REQUEST)
                client.asked = True
                self._loop.selector.modify(client.sock, selectors.EVENT_READ)
                return
            self._read(client)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(client, (time.time_ns(), error.errno or 0))

    def _read(self, client: _Client) -> None:
        chunk = client.sock.recv(CHUNK_BYTES)
        if not chunk:
            client.ended = True
            self._finish(client)
            return
        got = client.received_bytes
        client.intact = client.intact and chunk == self._payload[got : got + len(chunk)]
        client.received_bytes = got + len(chunk)
        if client.pauses_at is not None and client.received_bytes > client.pauses_at:
            client.pauses_at = None
            self._loop.selector.unregister(client.sock)
            heapq.heappush(self._paused, (time.monotonic() + self._demand.pause_s, client.port, client))

    def _finish(self, client: _Client, error: tuple[int, int] | None = None) -> None:
        self._over.append(client.tell(error))
        self._loop.selector.unregister(client.sock)
        del self._live[client.sock]
        client.sock.close()
