"""The server of a load: it sends every client the same payload, as a web server sends a large file."""

from __future__ import annotations

import selectors
import socket
import time
from typing import NoReturn

from netlab.experiments.connection import CHUNK_BYTES
from netlab.experiments.load.process import TICK_S, Loop
from netlab.observe.sockets import why_failed

BACKLOG = 1024


class Server:
    """Accepts, reads the request, sends the payload, and closes when the client has."""

    def __init__(self, listener: socket.socket, payload: bytes) -> None:
        self._listener, self._payload = listener, memoryview(payload)
        self._sent: dict[socket.socket, int] = {}
        self._ports: dict[socket.socket, int] = {}
        self._errors: list[tuple[int, int, int]] = []

    def run(self, pipe: int) -> NoReturn:
        """Serve until told to end; then tell the errors: (client's port, time in ns, errno) of each."""
        self._loop = Loop()
        self._listener.setblocking(False)
        self._loop.selector.register(self._listener, selectors.EVENT_READ)
        while not self._loop.ending:
            for key, events in self._loop.selector.select(TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(key.fileobj, events)
        for sock in self._sent:  # an error that arrived but was not read yet
            self._note(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        self._loop.tell(pipe, self._errors)

    def _accept(self) -> None:
        for _ in range(BACKLOG):
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
        self._sent[sock] = sent = sent + sock.send(self._payload[sent : sent + CHUNK_BYTES])
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
