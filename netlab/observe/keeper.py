"""The keeper of a namespace: the process that has what observing changes there, for all who observe at once.

The first who wants something forks it; it ends, and the namespace is as it was, once the last has gone, also by
SIGKILL: a connection says that somebody still wants it, and the kernel closes that of who is killed. What it keeps is
in `kept.py`. It is found by an abstract Unix socket, whose name is the namespace's own (unix(7)). Each who has a share
knows how the namespace was: where the keeper itself is killed, whoever leaves begets another that puts it back.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from netlab.errors import LabError, NetlabError, UnsupportedError
from netlab.linux import children
from netlab.linux.deadlines import scaled
from netlab.observe import Namespaces
from netlab.observe.kept import KINDS, Kept
from netlab.observe.sysctl import Change

_NAME = "\0netlab-keeper"
_COMM = "netlab-keeper"
_PATIENCE_S = 10.0
"""How long to wait for an answer of the keeper's, or for one to come or go."""
_LOOK_S = 0.005
_MOST_WAITING = 1 << 15
"""Messages that wait for one who doesn't read: later ones are lost to it."""
_WISH_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 16
_FAREWELL = b"\0"
"""What one who leaves gets last, once all is put back that nobody else wants; no netlink message is that short."""


class Share:
    """One's share in what the keeper has, until it is closed. What all get comes as messages.

    A NetlabError or OSError where it can't be had.
    """

    def __init__(self, namespaces: Namespaces, netns: str, kind: str, **wishes: object) -> None:
        self._namespaces, self._netns = namespaces, netns
        self._wish = [kind, wishes]
        self._socket, self._changes = _joined(namespaces, netns, [*self._wish, {}])
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor that is readable when messages wait."""
        return self._socket.fileno()

    def read(self) -> list[bytes]:
        """The messages that wait; OSError where the keeper has ended."""
        messages: list[bytes] = []
        while True:
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return messages
            if not message:
                raise OSError(errno.EPIPE, f"the process {_COMM} of {self._netns} has ended")
            messages.append(message)

    def close(self) -> None:
        """Give it up: what nobody else wants is as it was when this returns."""
        with suppress(NetlabError, OSError):  # the lab may be gone
            if not _left(self._socket):
                again, _ = _joined(self._namespaces, self._netns, [*self._wish, self._changes])
                _left(again)


def _left(connection: socket.socket) -> bool:
    """Leave, and close it; whether the keeper bade farewell, or had ended before."""
    message = b""
    with connection, suppress(OSError):
        connection.settimeout(scaled(_PATIENCE_S))
        connection.shutdown(socket.SHUT_WR)
        while said := connection.recv(_MESSAGE_BYTES):
            message = said
    return message == _FAREWELL


def _joined(namespaces: Namespaces, netns: str, wish: object) -> tuple[socket.socket, object]:
    """A connection to the namespace's keeper, which has granted the wish, and what it has changed for it."""
    deadline = time.monotonic() + scaled(_PATIENCE_S)
    while True:
        connection = namespaces.socket(netns, socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(scaled(_PATIENCE_S))
        try:
            connection.connect(_NAME)
            connection.send(json.dumps(wish).encode())
            if answer := connection.recv(_MESSAGE_BYTES):
                return connection, _heed(answer, netns)
        except (ConnectionError, FileNotFoundError):  # there is none, or it was about to end
            connection.close()
        except TimeoutError:
            connection.close()
            raise OSError(errno.ETIMEDOUT, f"the process {_COMM} of {netns} doesn't answer") from None
        except BaseException:
            connection.close()
            raise
        if time.monotonic() > deadline:
            raise OSError(errno.ETIMEDOUT, f"a process {_COMM} of {netns} neither answers nor ends")
        if not _start(namespaces, netns):
            time.sleep(_LOOK_S)


def _heed(answer: bytes, netns: str) -> object:
    """What the keeper has changed; where it met an error, that is raised."""
    kind, *words = json.loads(answer)
    if kind == "lab":
        raise LabError(f"{netns}: {words[0]}", words[1])
    if kind == "unsupported":
        raise UnsupportedError(words[0], words[1])
    if kind == "system":
        raise OSError(*words)
    return words[0]


def _told(error: NetlabError | OSError) -> list[object]:
    """An error as `_heed` raises it again."""
    if isinstance(error, OSError):
        return ["system", error.errno or errno.EIO, error.strerror or str(error), error.filename]
    return ["unsupported" if isinstance(error, UnsupportedError) else "lab", error.message, error.hint]


def _start(namespaces: Namespaces, netns: str) -> bool:
    """Fork the namespace's keeper; False where there is one, which is about to come or to go. OSError."""
    with namespaces.socket(netns, socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(_NAME)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        listener.listen()

        # A child's child: whoever forked it needn't wait for its end.
        def beget(complaint: BinaryIO) -> int:
            try:
                children.fork(lambda: _live(namespaces, netns, listener), ends_by=None, held_back=True)
            except OSError as error:
                complaint.write(json.dumps(_told(error)).encode())
            return 0

        complaint, status = children.ask(beget, held_back=True)
    if complaint or status:
        _heed(complaint or json.dumps(["system", errno.EIO, children.ending(status), _COMM]).encode(), netns)
    return True


def _live(namespaces: Namespaces, netns: str, listener: socket.socket) -> None:
    """The keeper's life, with nothing of its parent's but the listener. It hears no signal that can wait."""
    os.setsid()
    # Whoever takes a lab down ends those that live in a namespace of it, and spares those that have a way out.
    way_out = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    null = os.open(os.devnull, os.O_RDWR)
    with suppress(OSError):
        Path("/proc/thread-self/comm").write_text(_COMM)
    with suppress(OSError), namespaces.inside(netns):  # there is no way back: it is closed in here
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for last, kept in pairwise((2, *sorted((listener.fileno(), way_out)), os.sysconf("SC_OPEN_MAX"))):
            os.closerange(last + 1, kept)
        _Keeper(listener).serve()


class _Keeper:
    """Those who want something, and what they have for it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._kept: dict[str, Kept] = {}
        self._sharers: dict[int, _Sharer] = {}

    def serve(self) -> None:
        """Until nobody wants anything any more."""
        try:
            self._serve()
        finally:
            for kept in self._kept.values():
                kept.close()

    def _serve(self) -> None:
        self._listener.settimeout(scaled(_PATIENCE_S))
        with suppress(TimeoutError):  # who forked it is gone
            self._accept()
        self._listener.setblocking(False)
        while self._sharers:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            for fd, sharer in self._sharers.items():
                poll.register(fd, select.POLLIN | (select.POLLOUT if sharer.waiting else 0))
            for kept in self._kept.values():
                if (source := kept.fileno()) is not None:
                    poll.register(source, select.POLLIN)
            there = {fd for fd, _ in poll.poll()}
            self._hand_on()
            for sharer in [self._sharers[fd] for fd in there & self._sharers.keys()]:
                sharer.deliver()
                self._hear(sharer)
            if self._listener.fileno() in there:
                self._accept()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._sharers[connection.fileno()] = _Sharer(connection)

    def _hand_on(self) -> None:
        """What has come, to all who want it."""
        for kind, kept in self._kept.items():
            for message in kept.read():
                for sharer in self._sharers.values():
                    if sharer.kind == kind:
                        sharer.tell(message)

    def _hear(self, sharer: _Sharer) -> None:
        """A wish, or the end of one."""
        try:
            said = sharer.connection.recv(_WISH_BYTES)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said and not sharer.kind:
            self._grant(sharer, said)
        elif not said:
            self._let_go(sharer)

    def _grant(self, sharer: _Sharer, wish: bytes) -> None:
        try:
            kind, wishes, changes = json.loads(wish)
            answer = ["granted", self._provide(kind, wishes, changes)]
            sharer.kind = kind
        except (NetlabError, OSError) as error:
            answer = _told(error)
        except (AttributeError, KeyError, TypeError, ValueError):  # no netlab's
            answer = ["system", errno.EINVAL, os.strerror(errno.EINVAL), _COMM]
        sharer.tell(json.dumps(answer).encode())

    def _provide(self, kind: str, wishes: Mapping[str, Any], changes: Mapping[str, Sequence[str]]) -> object:
        """Have it; changes are those of a keeper that was killed. What this one has changed."""
        kept = self._kept.get(kind) or KINDS[kind]()
        try:
            kept.sysctls.adopt({key: Change(*values) for key, values in changes.items()})
            kept.want(**wishes)
            self._kept[kind] = kept
            return kept.sysctls.changes()
        finally:
            if kind not in self._kept:
                kept.close()

    def _let_go(self, sharer: _Sharer) -> None:
        del self._sharers[sharer.connection.fileno()]
        if sharer.kind and not any(other.kind == sharer.kind for other in self._sharers.values()):
            self._kept.pop(sharer.kind).close()
        self._accept()
        if not self._sharers:
            self._listener.close()  # whoever comes now finds none, and forks another
        sharer.tell(_FAREWELL)
        sharer.connection.close()


class _Sharer:
    """One who wants a kind of thing, or is about to say which; and the messages that it hasn't taken yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.kind = ""
        self.waiting: deque[bytes] = deque()

    def tell(self, message: bytes) -> None:
        """Send it, after what waits."""
        if len(self.waiting) < _MOST_WAITING:
            self.waiting.append(message)
        self.deliver()

    def deliver(self) -> None:
        """Send what waits, as far as there is room. Who is gone gets nothing."""
        try:
            while self.waiting:
                self.connection.send(self.waiting[0])
                self.waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.waiting.clear()
