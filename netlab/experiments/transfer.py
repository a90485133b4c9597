"""Both ends of one connection through the Service, in one process: real sockets, each of its own namespace.

The server sends a payload that both ends know, so that the client can tell whether each byte is the right one. What an
experiment does to the connection meanwhile is the experiment's.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from contextlib import ExitStack
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from netlab.errors import LabError
from netlab.experiments.scene import Scene
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.observe.sockets import error_event, sample, socket_error
from netlab.observe.watch import Watch

_REQUEST = b"GET\n"
_CHUNK_BYTES = 65536
_SEND_BUFFER_BYTES = 128 * 1024


class Transfer:
    """One connection and how far it has come. Leaving it closes all sockets.

    `server` and `client` are there once `connect` was True. bytes_received, intact and ended are the client's view:
    how much it got, whether all of it was as sent, whether the end of the stream followed.
    """

    server: socket.socket

    def __init__(self, scene: Scene, namespaces: Namespaces, watch: Watch) -> None:
        self._scene, self._watch = scene, watch
        self._payload = memoryview(_payload(scene.payload_bytes))
        self._sent = 0
        self._shut = False
        self._broken: set[socket.socket] = set()
        self._client_port = 0
        self.bytes_received = 0
        self.intact = True
        self.ended = False
        self._closing = ExitStack()
        family = socket.AF_INET if scene.vip.version == 4 else socket.AF_INET6
        self._listener = self._closing.enter_context(namespaces.socket(scene.server, family, socket.SOCK_STREAM))
        self.client = self._closing.enter_context(namespaces.socket(scene.client, family, socket.SOCK_STREAM))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def connect(self, timeout_s: float) -> bool:
        """Connect the client through the Service and send its request; False if the server hasn't got it in time.

        LabError where the server's port is taken by another program.
        """
        scene = self._scene
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Room for a burst that may not leave yet; an accepted socket inherits it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            self._listener.bind((str(scene.endpoint), scene.target_port))
        except OSError as error:
            raise LabError(
                f"{scene.server}: can't listen on {scene.endpoint} port {scene.target_port}: {error.strerror}",
                "the experiment is its own server there: no other program may listen on that port",
            ) from error
        self._listener.listen(1)
        self.client.setblocking(False)
        begun = self.client.connect_ex((str(scene.vip), scene.port))
        if begun not in (0, errno.EINPROGRESS):
            self._watch.note(error_event(begun, scene.client))
            return False
        self._client_port = self.client_address()[1]
        self._listener.setblocking(False)
        if not self._watch.until(self._accepted, timeout_s, [self._listener]):
            return False
        try:
            self.client.send(_REQUEST)
        except OSError as error:
            self._break(self.client, error.errno or 0)
            return False
        return self._watch.until(self._requested, timeout_s, [self.server]) and not self.server_broken()

    @property
    def payload_bytes(self) -> int:
        """How much there is to send."""
        return len(self._payload)

    def client_address(self) -> tuple[Address, int]:
        """The client's own address and port; the unspecified ones before `connect`."""
        host, port, *_ = self.client.getsockname()
        return ip_address(host), int(port)

    def _accepted(self) -> bool:
        try:
            server, _ = self._listener.accept()
        except BlockingIOError:
            return False
        self.server = self._closing.enter_context(server)
        self.server.setblocking(False)
        return True

    def _requested(self) -> bool:
        try:
            return bool(self.server.recv(len(_REQUEST)))
        except BlockingIOError:
            return False
        except OSError as error:
            self._break(self.server, error.errno or 0)
            return True

    def write(self, until_bytes: int) -> None:
        """The server writes the payload up to that byte, or until its queue is full; after the last one, it shuts."""
        end = min(until_bytes, len(self._payload))
        try:
            while self._sent < end:
                self._sent += self.server.send(self._payload[self._sent : min(end, self._sent + _CHUNK_BYTES)])
            if self._sent == len(self._payload) and not self._shut:
                self.server.shutdown(socket.SHUT_WR)
                self._shut = True
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(self.server, error.errno or 0)

    def read(self) -> None:
        """The client reads all that waits, and checks each byte."""
        try:
            while not self.ended:
                chunk = self.client.recv(_CHUNK_BYTES)
                if not chunk:
                    self.ended = True
                expected = self._payload[self.bytes_received : self.bytes_received + len(chunk)]
                self.intact = self.intact and chunk == expected
                self.bytes_received += len(chunk)
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(self.client, error.errno or 0)

    def server_broken(self) -> bool:
        """Whether the server's socket has, or had, an error; a new one is noted as an event."""
        if self.server not in self._broken and (
            event := socket_error(self.server, self._scene.server, *self._ports(self.server))
        ):
            self._watch.note(event)
            self._broken.add(self.server)
        return self.server in self._broken

    def sample(self) -> None:
        """Note TCP_INFO of both ends, as it is now."""
        for netns, sock in ((self._scene.server, self.server), (self._scene.client, self.client)):
            self._watch.note(sample(sock, netns))

    def client_broken(self) -> bool:
        """Whether the client's socket had an error when it was read."""
        return self.client in self._broken

    def run(self, timeout_s: float) -> None:
        """Write and read until the client has got the end of the stream, a socket has an error, or time is up."""
        self._watch.until(self._step, timeout_s, [self.client, self.server])

    def _step(self) -> bool:
        if not self.server_broken():
            self.read()
            self.write(len(self._payload))
        return self.ended or self.client_broken() or self.server_broken()

    def await_client_error(self, timeout_s: float) -> bool:
        """The client reads on after the server's end has died: its next ACK tells it. False if it never learns."""

        def learnt() -> bool:
            self.read()
            return self.ended or self.client_broken()

        return self._watch.until(learnt, timeout_s, [self.client])

    def _ports(self, sock: socket.socket) -> tuple[int, int]:
        """The socket's own port and its peer's, as this end sees them."""
        if sock is self.client:
            return self._client_port, self._scene.port
        return self._scene.target_port, self._client_port

    def _break(self, sock: socket.socket, code: int) -> None:
        netns = self._scene.server if sock is self.server else self._scene.client
        self._watch.note(error_event(code, netns, *self._ports(sock)))
        self._broken.add(sock)


@lru_cache(maxsize=1)
def _payload(size_bytes: int) -> bytes:
    """Bytes that differ at every offset, the same in every run: a lost, doubled or moved piece shows."""
    return hashlib.shake_256(b"netlab").digest(size_bytes)
