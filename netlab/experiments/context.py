"""Where a trial is run: the lab's namespaces, the connections, and what must be given back when the trial is over.

Stimuli act through it, conditions look at it. One thread drives everything: whoever waits, pumps.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from netlab.errors import StepError
from netlab.experiments.connection import Connection, End
from netlab.experiments.experiment import FIRST
from netlab.experiments.listeners import Listeners
from netlab.experiments.load import Load
from netlab.experiments.moment import Entry
from netlab.experiments.not_applied import NotApplied
from netlab.experiments.roles import Roles
from netlab.lab.apply import Kernel, no_sysctl
from netlab.lab.netns import Namespaces
from netlab.lab.steps import KernelStep
from netlab.linux import ctnetlink, interrupts, nft, sysctl
from netlab.model import Topology
from netlab.observe.counters import Counters
from netlab.observe.watch import Watch
from netlab.record.events import CT_TCP_STATES, Event, Tuple
from netlab.record.recording import ClosedSocket, CraftedSegment

_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
"""IPS_SEEN_REPLY and IPS_ASSURED of enum ip_conntrack_status (nf_conntrack_common.h)."""

_PICKS = 16
"""How many ports of the kernel's choice are looked at for one that no trial has had."""


class Context:
    """One trial's context. Leaving it undoes what the stimuli changed, the last change first, and closes all sockets.

    connections are by name, in the order they were made; load is None where no step makes one.
    timeout_s is how long a transfer may take; unless it listens, no server of netlab's does. own_ports are the client's
    ports of a load's connections that are observed whole; used_ports are those that it had in the trials before, and of
    which conntrack may still have an entry.
    """

    def __init__(
        self,
        topology: Topology,
        roles: Roles,
        namespaces: Namespaces,
        watch: Watch,
        timeout_s: float,
        own_ports: range,
        used_ports: set[int],
        *,
        listens: bool = True,
    ) -> None:
        self.topology, self.roles, self.namespaces, self.watch = topology, roles, namespaces, watch
        self.timeout_s, self.own_ports, self.listens = timeout_s, own_ports, listens
        self._used_ports = used_ports
        self.connections: dict[str, Connection] = {}
        self.load: Load | None = None
        self._counters: dict[str, Counters] = {}
        self._listeners: Listeners | None = None
        self._made: list[CraftedSegment | ClosedSocket] = []
        self._closing = ExitStack()
        self._changes = self._closing.enter_context(ExitStack())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def undo(self, change: Callable[[], object]) -> None:
        """Have something called when the steps are over, whatever happens."""
        self._changes.callback(change)

    def make(self, make: Callable[[], object], back: Callable[[], object], *, stays: bool = False) -> None:
        """Do something that `back` undoes when the steps are over: no Ctrl-C comes between the two.

        If it stays, that is only when the sockets are closed: what it keeps from the connection never comes.
        """
        with interrupts.held_back():
            make()
            (self._closing.callback if stays else self.undo)(back)

    def restore(self) -> None:
        """Undo what the stimuli changed, the last change first; the connections stay."""
        with interrupts.held_back():
            self._changes.close()

    def note(self, event: Event) -> None:
        """Add an event to the trial's."""
        self.watch.note(event)

    def made(self, what: CraftedSegment | ClosedSocket) -> None:
        """Say what the stimulus under way did that looks like the connection's own doing."""
        self._made.append(what)

    def take_made(self) -> tuple[CraftedSegment | ClosedSocket, ...]:
        """What was made since this was last asked."""
        made, self._made = tuple(self._made), []
        return made

    def still_open(self) -> tuple[ClosedSocket, ...]:
        """The sockets that leaving will close."""
        return tuple(
            ClosedSocket(time.time_ns(), end.netns, connection.header(end))
            for connection in self.connections.values()
            for end in connection.ends()
            if not end.broken
        )

    # Connections

    def listen(self) -> Listeners:
        """The server's listening sockets, none where nobody is to listen. LabError where a port of theirs is taken."""
        if self._listeners is None:
            roles = self.roles if self.listens else replace(self.roles, servers=())
            self._listeners = Listeners(roles, self.namespaces)
            self._closing.callback(self._listeners.close)
        return self._listeners

    def new_connection(self, name: str = FIRST) -> Connection:
        """A connection that isn't made yet; NotApplied where there is one of that name already."""
        if name in self.connections:
            raise NotApplied(f"a name for the second connection: {name!r} is taken")
        own = "" if name == FIRST else name
        connection = Connection(self.roles, self.namespaces, self.watch, self.listen(), own)
        self._closing.callback(connection.close)
        self.connections[name] = connection
        return connection

    def connect(self, name: str, port: int, isn: int | None, within_s: float | None) -> bool:
        """A new connection, from that port of the client's, or 0: from one that no trial before has had.

        False where the server hasn't got its request in time, or where there is no way to it; within_s None: it is only
        begun. isn is as for `Connection.begin`.
        """
        connection = self.new_connection(name)
        port = port or self._unused_port()
        done = connection.begin(port, isn) if within_s is None else connection.connect(within_s, port, isn)
        self._used_ports.add(connection.client_port)
        return done

    def _unused_port(self) -> int:
        """A port that the kernel picks and no trial has had; 0 where it picks none such, or where none has had any."""
        family = socket.AF_INET if self.roles.vip.version == 4 else socket.AF_INET6
        for _ in range(_PICKS if self._used_ports else 0):
            with self.namespaces.socket(self.roles.client, family, socket.SOCK_STREAM) as picking:
                picking.bind(("", 0))
                port = int(picking.getsockname()[1])
            if port not in self._used_ports:
                return port
        return 0

    def connection(self, name: str = FIRST) -> Connection:
        """The connection of that name; NotApplied where no step made one."""
        if name not in self.connections:
            raise NotApplied(f"a connection {name!r}: no step before this one connects")
        return self.connections[name]

    def end(self, end: str, connection: str = FIRST) -> End:
        """One end of a connection; NotApplied where it isn't there, or had an error."""
        try:
            found = self.connection(connection).end(end)
        except KeyError:
            raise NotApplied(f"the {end}'s end of the connection") from None
        if found.broken:
            raise NotApplied(f"a connection that lives until the stimulus: the {end}'s socket had an error")
        return found

    def leave(self, end: End, connection: str = FIRST, *, silently: bool) -> None:
        """An end's program closes its socket: as programs do, or without a packet, as where its host crashes."""
        found = self.connection(connection)
        self.made(ClosedSocket(time.time_ns(), end.netns, found.header(end), silently))
        found.leave(end, silently=silently)

    def pump(self) -> None:
        """Let the programs at all ends do what they can now."""
        for connection in self.connections.values():
            connection.pump()

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Pump and observe until `done()`; False if the time ran out first."""

        def pumped() -> bool:
            self.pump()
            return done()

        sockets = [end.socket for connection in self.connections.values() for end in connection.ends() if end.reads]
        return self.watch.until(pumped, timeout_s, [sock for sock in sockets if sock.fileno() >= 0])

    # The lab

    def change(self, netns: str, change: Sequence[KernelStep], back: Sequence[KernelStep]) -> None:
        """Carry out steps in a namespace, as `up` does, and those of `back` when the trial is over. StepError."""
        with self.namespaces.inside(netns):
            indexes = {(netns, name): index for index, name in socket.if_nameindex()}
        made = False

        def undo() -> None:
            # What was made in part only is given back as far as it goes: why it failed is what is to be told.
            with nullcontext() if made else suppress(StepError):
                Kernel(self.namespaces, indexes).apply(back)

        self.undo(undo)
        Kernel(self.namespaces, indexes).apply(change)
        made = True

    def add_table(self, netns: str, name: str, text: str, what: str = "a rule", *, stays: bool = False) -> None:
        """Load an nftables table of our own into a namespace, in nft's words, as `make` makes and undoes.

        NotApplied where the kernel refuses; what is then missing.
        """

        def make() -> None:
            with self.namespaces.inside(netns):
                nft.make_own_table(name, text)

        def remove() -> None:
            with suppress(OSError), self.namespaces.inside(netns):
                nft.remove_own_table(name)

        try:
            self.make(make, remove, stays=stays)
        except OSError as error:
            raise NotApplied(f"{what} in {netns}: {error.strerror}") from None

    def tracked_as(self, netns: str, connection: str = FIRST) -> Tuple | None:
        """By which header conntrack in a namespace has a connection's entry, None where it has none.

        It is that of the client's packets as they come there: past a translation another than the client's own.
        """
        with self.namespaces.inside(netns):
            for header in self.connection(connection).headers():
                if ctnetlink.entry(header) is not None:
                    return header
        return None

    def entry(self, netns: str, connection: str = FIRST) -> Entry | None:
        """How a connection's entry stands in a namespace's conntrack; None where there is none."""
        header = self.tracked_as(netns, connection)
        with self.namespaces.inside(netns):
            found = ctnetlink.entry(header) if header is not None else None
        if found is None:
            return None
        state = CT_TCP_STATES[found.tcp_state] if found.tcp_state is not None else ""
        return Entry(state, bool(found.status & _SEEN_REPLY), bool(found.status & _ASSURED))

    def count(self, netns: str) -> None:
        """Begin to count in a namespace."""
        if netns not in self._counters:
            tables = self.topology.netns(netns).tables
            self._counters[netns] = Counters(self.namespaces, netns, nftables=bool(tables))

    def counted(self, netns: str, name: str) -> int | None:
        """How far a counter of a namespace has gone since `count`, None where it has none of that name.

        KeyError without `count`.
        """
        return self._counters[netns].grown(name)

    def read_sysctl(self, netns: str, key: str) -> str:
        """A sysctl's value in a namespace; UnsupportedError where this kernel has none of that name, or OSError."""
        with self.namespaces.inside(netns):
            try:
                return sysctl.read(key)
            except FileNotFoundError:
                raise no_sysctl(key) from None
