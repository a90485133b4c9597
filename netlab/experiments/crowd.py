"""Many connections through the Service at once: a server's process and the clients', forked, each with one loop.

The server sends each client the same payload, as a web server sends a large file; the clients read it and check each
byte. What they saw comes back through pipes. Both are processes of their own so that the server's CPU can be limited,
and so that neither waits for the observers, which this process drives meanwhile.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

from netlab import interrupts
from netlab.cgroups import PERIOD_US, limited_cpu
from netlab.errors import NetlabError, UnsupportedError
from netlab.experiments.connection import known_bytes
from netlab.experiments.scene import Scene
from netlab.netns import Namespaces
from netlab.observe.sockets import why_failed

_REQUEST = b"GET\n"
_CHUNK_BYTES = 65536
_BACKLOG = 1024
_TICK_S = 0.05
_LAST_WORDS_S = 5.0
"""How long a process may take to tell what it saw after it was told to end."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a crowd: how many connections, how many at a time, and for how long at most.

    The first ones have `own_ports` as the client's. Of a hundred clients `pausing_percent` stop reading halfway for
    pause_s.
    """

    connections: int
    parallel: int
    timeout_s: float
    own_ports: range
    pausing_percent: int = 0
    pause_s: float = 0.0


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


class Crowd:
    """A server's process and its clients'; both are gone when it is left.

    cpu_percent limits the server to so much of one CPU; where this user can't do that, it is None, and `unlimited` says
    why.
    """

    def __init__(
        self, scene: Scene, namespaces: Namespaces, listener: socket.socket, demand: Demand, cpu_percent: int | None
    ) -> None:
        self.cpu_percent, self.unlimited = cpu_percent, ""
        self._told: list[Told] | None = None
        self._closing = ExitStack()
        self._demand = demand
        try:
            payload = known_bytes(scene.payload_bytes)
            listener.listen(_BACKLOG)
            group = self._limit(cpu_percent)
            self._server = self._closing.enter_context(_process(_Server(listener, payload).run))
            if group is not None:
                (group / "cgroup.procs").write_text(str(self._server.pid))
            clients = _Clients(scene, namespaces, payload, demand)
            self._clients = self._closing.enter_context(_process(clients.run))
        except BaseException:
            self._closing.close()
            raise

    def _limit(self, cpu_percent: int | None) -> Any:
        if cpu_percent is None:
            return None
        try:
            return self._closing.enter_context(limited_cpu(cpu_percent * PERIOD_US // 100))
        except (UnsupportedError, OSError) as error:
            self.cpu_percent, self.unlimited = None, str(error)
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


# --- processes -------------------------------------------------------------------------------------------------------


class _Process:
    """A forked child that writes one line of JSON when it is through, or told so by SIGTERM, and waits to be ended."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self._pipe = pid, pipe
        self._said = b""
        os.set_blocking(pipe, False)

    def spoke(self) -> bool:
        """Whether it has said all it has to say, or has ended."""
        while True:
            try:
                piece = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return self._said.endswith(b"\n")
            if not piece:
                return True
            self._said += piece

    def words(self) -> Any:
        """What it says: it is told to come to an end. NetlabError where nothing comes."""
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + _LAST_WORDS_S
        while not self.spoke():
            if time.monotonic() > deadline:
                raise NetlabError("a process of the load doesn't answer")
            time.sleep(0.001)
        if not self._said.endswith(b"\n"):
            raise NetlabError("a process of the load ended before it told what it saw")
        return json.loads(self._said)


@contextmanager
def _process(body: Callable[[int, int], NoReturn]) -> Iterator[_Process]:
    """A child that calls body with its pipe and the pid of this process."""
    read, write = os.pipe()
    maker = os.getpid()
    pid = interrupts.fork()
    if pid == 0:
        try:
            os.close(read)
            body(write, maker)
        except BaseException as error:
            os.write(2, f"netlab: a process of the load failed: {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(write)
    try:
        yield _Process(pid, read)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


class _Loop:
    """A selector, and the wish to end: SIGTERM brings it, and so does the end of who made this process."""

    def __init__(self, maker: int) -> None:
        self.selector = selectors.DefaultSelector()
        self._told = False
        self._makers = (maker, 0)  # 0: a process of another PID namespace
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: object) -> None:
        self._told = True

    def ending(self) -> bool:
        return self._told or self.alone()

    def alone(self) -> bool:
        return os.getppid() not in self._makers

    def tell(self, pipe: int, words: object) -> NoReturn:
        """Say it, and keep every socket as it is until this process is ended."""
        data = json.dumps(words).encode() + b"\n"
        with suppress(BrokenPipeError):  # nobody is left to hear it
            while data:
                data = data[os.write(pipe, data) :]
        while not self.alone():
            time.sleep(_TICK_S)
        os._exit(0)


# --- the server ------------------------------------------------------------------------------------------------------


class _Server:
    """Accepts, reads the request, sends the payload, and closes when the client has."""

    def __init__(self, listener: socket.socket, payload: bytes) -> None:
        self._listener, self._payload = listener, memoryview(payload)
        self._sent: dict[socket.socket, int] = {}
        self._ports: dict[socket.socket, int] = {}
        self._errors: list[tuple[int, int, int]] = []

    def run(self, pipe: int, maker: int) -> NoReturn:
        self._loop = _Loop(maker)
        self._listener.setblocking(False)
        self._loop.selector.register(self._listener, selectors.EVENT_READ)
        while not self._loop.ending():
            for key, events in self._loop.selector.select(_TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(key.fileobj, events)
        for sock in self._sent:  # an error that arrived but was not read yet
            self._note(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        self._loop.tell(pipe, self._errors)

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                sock, peer = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            sock.setblocking(False)
            self._sent[sock], self._ports[sock] = -1, peer[1]
            self._loop.selector.register(sock, selectors.EVENT_READ)

    def _serve(self, sock: socket.socket, events: int) -> None:
        """-1 sent bytes: the request hasn't come yet."""
        try:
            if events & selectors.EVENT_READ and self._hears_end(sock):
                self._forget(sock)
            elif self._sent[sock] < len(self._payload) and events & selectors.EVENT_WRITE:
                self._send(sock)
        except BlockingIOError:
            pass
        except OSError as error:
            self._note(sock, why_failed(sock, error))
            self._forget(sock)

    def _hears_end(self, sock: socket.socket) -> bool:
        heard = sock.recv(64)
        if self._sent[sock] < 0 and heard:
            self._sent[sock] = 0
            self._loop.selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return not heard

    def _send(self, sock: socket.socket) -> None:
        sent = self._sent[sock]
        self._sent[sock] = sent = sent + sock.send(self._payload[sent : sent + _CHUNK_BYTES])
        if sent == len(self._payload):
            sock.shutdown(socket.SHUT_WR)
            self._loop.selector.modify(sock, selectors.EVENT_READ)

    def _note(self, sock: socket.socket, code: int) -> None:
        if code:
            self._errors.append((self._ports[sock], time.time_ns(), code))

    def _forget(self, sock: socket.socket) -> None:
        self._loop.selector.unregister(sock)
        del self._sent[sock], self._ports[sock]
        sock.close()


# --- the clients -----------------------------------------------------------------------------------------------------


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


class _Clients:
    """Keeps so many connections open at a time, until all were; each asks, reads, checks, and closes."""

    def __init__(self, scene: Scene, namespaces: Namespaces, payload: bytes, demand: Demand) -> None:
        self._scene, self._namespaces, self._demand = scene, namespaces, demand
        self._payload = memoryview(payload)
        self._live: dict[socket.socket, _Client] = {}
        self._paused: list[tuple[float, int, _Client]] = []
        self._over: list[tuple[object, ...]] = []
        self._ports: set[int] = set(demand.own_ports)

    def run(self, pipe: int, maker: int) -> NoReturn:
        with self._namespaces.inside(self._scene.client):
            self._loop = _Loop(maker)
            deadline = time.monotonic() + self._demand.timeout_s
            waiting = iter(range(self._demand.connections))
            left = True
            while (left or self._live) and not self._loop.ending() and time.monotonic() < deadline:
                if left:
                    left = self._open(waiting)
                self._resume()
                for key, _ in self._loop.selector.select(self._patience_s()):
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(self._live[key.fileobj])
        self._loop.tell(pipe, self._over + [client.tell() for client in self._live.values()])

    def _open(self, waiting: Iterator[int]) -> bool:
        """Open as many as there is room for; whether some are left."""
        room = self._demand.parallel - len(self._live)
        numbers = list(islice(waiting, room))
        for number in numbers:
            self._begin(number)
        return len(numbers) == room

    def _begin(self, number: int) -> None:
        scene, demand = self._scene, self._demand
        family = socket.AF_INET if scene.vip.version == 4 else socket.AF_INET6
        own_port = demand.own_ports[number] if number < len(demand.own_ports) else None
        sock = self._bound(family) if own_port is None else socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        # Evenly among them: the first of them, too, where any does.
        pauses = number * demand.pausing_percent % 100 < demand.pausing_percent
        client = _Client(sock, len(self._payload) // 2 if pauses else None)
        if own_port is not None:
            sock.bind(("", own_port))
        begun = sock.connect_ex((str(scene.vip), scene.port))
        client.port = sock.getsockname()[1]
        if begun not in (0, errno.EINPROGRESS):
            self._over.append(client.tell((time.time_ns(), begun)))
            sock.close()
            return
        self._live[sock] = client
        self._loop.selector.register(sock, selectors.EVENT_WRITE)

    def _bound(self, family: int) -> socket.socket:
        """A socket with a port that no other connection of this load has had: connections are told apart by it.

        The server closes first, so a client's port is free again at once, and the kernel may pick it again.
        """
        while True:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.bind(("", 0))
            port = int(sock.getsockname()[1])
            if port not in self._ports:
                self._ports.add(port)
                return sock
            sock.close()

    def _patience_s(self) -> float:
        return min(_TICK_S, max(0.0, self._paused[0][0] - time.monotonic())) if self._paused else _TICK_S

    def _resume(self) -> None:
        while self._paused and self._paused[0][0] <= time.monotonic():
            _, _, client = heapq.heappop(self._paused)
            self._loop.selector.register(client.sock, selectors.EVENT_READ)

    def _serve(self, client: _Client) -> None:
        try:
            if not client.asked:
                client.sock.send(_REQUEST)
                client.asked = True
                self._loop.selector.modify(client.sock, selectors.EVENT_READ)
                return
            self._read(client)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(client, (time.time_ns(), error.errno or 0))

    def _read(self, client: _Client) -> None:
        chunk = client.sock.recv(_CHUNK_BYTES)
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
