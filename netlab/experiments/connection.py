"""Both ends of one connection, in one process: real sockets, each of its own namespace.

The ends are programs that go on with what they were told whenever the context pumps: the client's reads unless it was
stopped, each writes up to the byte it was told to. What they send both know, so that each byte is checked. What an
experiment does to the connection meanwhile is its stimuli's.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address

from netlab.errors import unsupported
from netlab.experiments.listeners import Accepted, Listeners
from netlab.experiments.roles import Roles
from netlab.linux.tcp_repair import forget, set_initial_number
from netlab.model import Address
from netlab.observe import Namespaces
from netlab.observe.sockets import TcpInfo, error_event, sample, socket_error, tcp_info, why_failed
from netlab.observe.watch import Watch
from netlab.record.events import Tuple
from netlab.record.flow import Flow, ends, inverse

REQUEST = b"GET\n"
CHUNK_BYTES = 65536


class End:
    """One end's program: what it has sent and received of the bytes that both ends know.

    goal_bytes is how far it shall write, reads whether it reads; intact whether each byte it got was the byte sent,
    ended whether the end of the stream followed. closes: it shuts its direction down once all is written. gone: the
    program has no socket any more.
    """

    def __init__(self, name: str, netns: str, sock: socket.socket, out: memoryview, incoming: memoryview) -> None:
        self.name, self.netns, self.socket = name, netns, sock
        self.goal_bytes = self.sent_bytes = self.received_bytes = 0
        self.reads = self.intact = True
        self.closes = self.ended = self.shut = self.broken = self.gone = False
        self._out, self._incoming = out, incoming

    @property
    def payload_bytes(self) -> int:
        """How much there is to send."""
        return len(self._out)

    def transfer_state(self) -> TcpInfo:
        """What the kernel says of its socket now."""
        return tcp_info(self.socket)

    def write(self) -> int:
        """Write up to the goal, or until the queue is full; the errno of what went wrong, else 0."""
        end = min(self.goal_bytes, len(self._out))
        try:
            while self.sent_bytes < end:
                # In one call all that the queue has room for: between two a busy machine may let ACKs come in.
                self.sent_bytes += self.socket.send(self._out[self.sent_bytes : end])
            if self.closes and self.sent_bytes == end and not self.shut:
                self.socket.shutdown(socket.SHUT_WR)
                self.shut = True
        except BlockingIOError:
            pass
        except OSError as error:
            return why_failed(self.socket, error)
        return 0

    def read(self) -> int:
        """Read all that waits, and check each byte; the errno of what went wrong, else 0."""
        try:
            while not self.ended:
                chunk = self.socket.recv(CHUNK_BYTES)
                if not chunk:
                    self.ended = True
                expected = self._incoming[self.received_bytes : self.received_bytes + len(chunk)]
                self.intact = self.intact and chunk == expected
                self.received_bytes += len(chunk)
        except BlockingIOError:
            pass
        except OSError as error:
            return why_failed(self.socket, error)
        return 0


class Connection:
    """One connection and how far it has come. `close` closes its sockets; the listener is the context's.

    name is what the events of its sockets bear: nothing for the connection under study. The server's end is there once
    the connection was accepted, which `connect` waits for and `pump` looks for; accepted has it as the listeners gave
    it. The client's own address and port are the unspecified ones before `begin`, and began_ns, when that was, is 0.
    """

    def __init__(
        self, roles: Roles, namespaces: Namespaces, watch: Watch, listeners: Listeners, name: str = ""
    ) -> None:
        self.roles, self._watch, self._listeners, self._name = roles, watch, listeners, name
        self.accepted: Accepted | None = None
        self.began_ns = 0
        self._reply = memoryview(known_bytes(roles.payload_bytes))
        self._request = memoryview(REQUEST + known_bytes(roles.payload_bytes))
        self.client_address: Address = type(roles.vip)(0)
        self.client_port = 0
        self._closing = ExitStack()
        family = socket.AF_INET if roles.vip.version == 4 else socket.AF_INET6
        own = self._closing.enter_context(namespaces.socket(roles.client, family, socket.SOCK_STREAM))
        own.setblocking(False)
        self.client = End("client", roles.client, own, self._request, self._reply)
        self._server: End | None = None

    @property
    def tuple_orig(self) -> Tuple:
        """The header of the client's packets as its socket sends them, by which conntrack's entry is found."""
        vip, port = self.roles.vip, self.roles.port
        return Tuple(self.client_address, self.client_port, vip, port, socket.IPPROTO_TCP)

    def headers(self) -> tuple[Tuple, ...]:
        """The headers that the client's packets have on their way, as far as the sockets tell them."""
        return tuple(Tuple(*header, socket.IPPROTO_TCP) for header in self.flow().headers())

    def header(self, end: End) -> Tuple:
        """The header of the packets that an end's socket sends."""
        if end is self.client:
            return self.tuple_orig
        assert self.accepted is not None
        server = self.accepted.server
        return Tuple(server.address, server.port, *self.accepted.peer, socket.IPPROTO_TCP)

    def place(self, name: str) -> tuple[str, Tuple]:
        """An end's namespace, and the header of what leaves it: of a server that hasn't accepted it, as if it had."""
        flow = self.flow()
        if name == "client":
            return flow.client, self.tuple_orig
        return flow.server, Tuple(*inverse(flow.headers()[-1]), socket.IPPROTO_TCP)

    def flow(self) -> Flow:
        """The connection as its sockets have it: before it is accepted, as if it came to the first server."""
        roles = self.roles
        server = self.accepted.server if self.accepted else roles.first
        flow = Flow(
            client=roles.client,
            node=roles.node,
            server=server.netns,
            server_node=server.node,
            client_address=self.client_address if self.began_ns else roles.client_address,
            client_port=self.client_port,
            vip=roles.vip,
            port=roles.port,
            endpoint=server.address,
            target_port=server.port,
        )
        if self.accepted is None or self.accepted.peer == flow.peer:
            return flow
        way = (ends(self.tuple_orig), (*self.accepted.peer, server.address, server.port))
        return replace(flow, way=tuple(Tuple(*each, socket.IPPROTO_TCP) for each in way))

    def close(self) -> None:
        """Close both ends' sockets."""
        self._closing.close()

    def ends(self) -> Iterator[End]:
        """The ends that there are: the server's only once it was accepted, and none that is gone."""
        for end in (self.client, self._server):
            if end is not None and not end.gone:
                yield end

    def end(self, name: str) -> End:
        """The end of that name, "client" or "server"; KeyError where it isn't there yet."""
        for end in self.ends():
            if end.name == name:
                return end
        raise KeyError(name)

    def connect(self, timeout_s: float, source_port: int = 0, isn: int | None = None) -> bool:
        """Connect the client and send its request; False if the server hasn't got it in time.

        source_port and isn are as for `begin`.
        """
        if not self.begin(source_port, isn):
            return False
        if not self._watch.until(self._accept, timeout_s, self._listeners.sockets):
            return False
        self.pump()
        return not self.client.broken and self._watch.until(self._requested, timeout_s, [self.end("server").socket])

    def begin(self, source_port: int = 0, isn: int | None = None) -> bool:
        """Begin to connect; whoever pumps goes on with it. False where there is no way to the server, say.

        source_port is the client's own, 0 for any; isn its initial sequence number, None for the kernel's choice.
        UnsupportedError where that can't be told the kernel.
        """
        roles, client = self.roles, self.client
        if isn is not None:
            with unsupported("can't choose a socket's first sequence number"):
                set_initial_number(client.socket, isn)
        if source_port:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.socket.bind(("", source_port))
        self.began_ns = time.time_ns()
        begun = client.socket.connect_ex((str(roles.vip), roles.port))
        if begun not in (0, errno.EINPROGRESS):
            self._watch.note(error_event(begun, roles.client, connection=self._name))
            return False
        host, port, *_ = client.socket.getsockname()
        self.client_address, self.client_port = ip_address(host), int(port)
        client.goal_bytes = len(REQUEST)
        return True

    def _accept(self) -> bool:
        self.accepted = self._listeners.take(self.client_address, self.client_port)
        if self.accepted is None:
            return False
        own = self._closing.enter_context(self.accepted.socket)
        self._server = End("server", self.accepted.server.netns, own, self._reply, self._request)
        return True

    def _requested(self) -> bool:
        self.pump()
        server = self.end("server")
        return server.received_bytes >= len(REQUEST) and not server.broken

    def pump(self) -> None:
        """Let each end's program do what it can now."""
        if self.began_ns and not self.accepted:
            self._accept()
        # The server's first: where both ends have an error, the client's followed from it.
        for end in reversed([*self.ends()]):
            self._look_for_error(end)
        for end in self.ends():
            if end.reads and not end.broken:
                self._break(end, end.read())
            if not end.broken:
                self._break(end, end.write())

    def _look_for_error(self, end: End) -> None:
        """Note the error that waits at a socket; a client that reads on learns of its own when it reads or writes."""
        if end.broken or (end.name != "server" and not end.ended):
            return
        if event := socket_error(end.socket, end.netns, *self._ports(end), self._name):
            self._watch.note(event)
            end.broken = True

    def leave(self, end: End, *, silently: bool) -> None:
        """An end's program closes its socket: as programs do, or without a packet, as where its host crashes."""
        end.gone = True
        if silently:
            with unsupported("can't forget a socket"):
                forget(end.socket)
        else:
            end.socket.close()

    def broken(self) -> bool:
        """Whether an end's socket has, or had, an error."""
        return any(end.broken for end in self.ends())

    def settled(self) -> bool:
        """Whether the client has got the end of the stream, or an end's socket has an error."""
        return self.client.ended or self.broken()

    def sample(self) -> None:
        """Note TCP_INFO of both ends, as it is now."""
        for end in self.ends():
            self._watch.note(sample(end.socket, end.netns))

    def _ports(self, end: End) -> tuple[int, int]:
        """The socket's own port and its peer's, as this end sees them."""
        header = self.header(end)
        return header.sport, header.dport

    def _break(self, end: End, code: int) -> None:
        if code:
            self._watch.note(error_event(code, end.netns, *self._ports(end), self._name))
            end.broken = True


@lru_cache(maxsize=1)
def known_bytes(size_bytes: int) -> bytes:
    """Bytes that differ at every offset, the same in every run: a lost, doubled or moved piece shows."""
    return hashlib.shake_256(b"netlab").digest(size_bytes)
