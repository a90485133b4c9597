"""Many connections through the Service at once: a server's process and the clients', forked, each with one loop.

The server sends each client the same payload, as a web server sends a large file; the clients read it and check each
byte. What they saw comes back through pipes. Both are processes of their own so that the server's CPU can be limited,
and so that neither waits for the observers, which this process drives meanwhile.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from netlab.experiments.connection import known_bytes
from netlab.experiments.load.clients import Clients, Demand
from netlab.experiments.load.process import process
from netlab.experiments.load.server import BACKLOG, Server
from netlab.experiments.roles import Roles
from netlab.lab.netns import Namespaces
from netlab.linux.cgroups import PERIOD_US, limited_cpu

__all__ = ["Demand", "Load", "Told"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the programs tell of one connection: its client's port, what the client got, and errors with their times.

    An error is (time in ns, errno), None where there was none; ended: the end of the stream came.
    """

    port: int
    received_bytes: int
    intact: bool
    ended: bool
    duration_s: float
    client_error: tuple[int, int] | None = None
    server_error: tuple[int, int] | None = None


class Load:
    """A server's process and its clients': `start` begins them, `close` ends both.

    cpu_percent limits the server to so much of one CPU; where this user can't do that, it is None once they are begun,
    and `unlimited` says why.
    """

    def __init__(
        self, roles: Roles, namespaces: Namespaces, listener: socket.socket, demand: Demand, cpu_percent: int | None
    ) -> None:
        self.cpu_percent, self.unlimited = cpu_percent, ""
        payload = known_bytes(roles.payload_bytes)
        self._listener = listener
        self._serve = Server(listener, payload).run
        self._connect = Clients(roles, namespaces, payload, demand).run
        self._told: list[Told] | None = None
        self._closing = ExitStack()

    def start(self) -> None:
        """Begin both; OSError, and then none is left."""
        with ExitStack() as opening:
            self._listener.listen(BACKLOG)
            group = self._limit(opening)
            self._server = opening.enter_context(process(self._serve))
            if group is not None:
                (group / "cgroup.procs").write_text(str(self._server.pid))
            self._clients = opening.enter_context(process(self._connect))
            self._closing = opening.pop_all()

    def _limit(self, opening: ExitStack) -> Path | None:
        """The cgroup for the server's process; None where it is not to be limited, or can't be."""
        if self.cpu_percent is None:
            return None
        try:
            return opening.enter_context(limited_cpu(self.cpu_percent * PERIOD_US // 100))
        except OSError as error:
            self.cpu_percent, self.unlimited = None, error.strerror or str(error)
            return None

    def ended(self) -> bool:
        """Whether all connections are over, or time is."""
        return self._clients.spoke()

    def told(self) -> list[Told]:
        """What each connection's two ends saw. NetlabError where a process ended before it told."""
        if self._told is None:
            # Clients that are given up keep their sockets until then: to close them would look like a reset.
            clients, server = self._clients.words(), self._server.words()
            errors = {port: (time_ns, code) for port, time_ns, code in server}
            self._told = [
                Told(port, received, intact, ended, duration_s, tuple(error) if error else None, errors.get(port))
                for port, received, intact, ended, duration_s, error in clients
            ]
        return self._told

    def close(self) -> None:
        """End both processes."""
        self._closing.close()
