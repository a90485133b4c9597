"""Sockets that the kernel frees, of any program."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import labs
import pytest
from pair import LEFT, PAIR, RIGHT, connect
from private_lab import PrivateLab

from netlab.linux.netlink import attribute
from netlab.observe.sockets import ClosedSocketObserver, decode_closed
from netlab.observe.watch import Watch
from netlab.record.events import Event, SocketClosed
from netlab.record.observers import ObserverId, ObserverKind

LINGER_0 = struct.pack("ii", 1, 0)


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right, joined by a veth pair."""
    with PrivateLab(PAIR) as lab:
        yield lab


def test_a_freed_socket_is_taken_apart() -> None:
    info = bytearray(240)
    struct.pack_into("=QQ", info, 120, 1000, 7)
    struct.pack_into("=QQ", info, 200, 1100, 200)
    struct.pack_into("=I", info, 100, 3)
    struct.pack_into("=I", info, 144, 50)
    head = struct.pack("=BBBB", socket.AF_INET6, 7, 0, 0) + struct.pack("!HH", 80, 40000)
    local, peer = ip_address("fd00::2"), ip_address("fd00::1")
    body = (head + local.packed + peer.packed).ljust(72, b"\0")
    closed = decode_closed(body + attribute(2, bytes(info)), "right")
    assert closed is not None
    assert replace(closed, time_ns=0) == SocketClosed(0, "right", local, 80, peer, 40000, 7, 900, 50, 1000, 3)
    assert decode_closed(body, "right") is None


@pytest.mark.kernel
def test_a_reset_socket_is_freed_when_its_program_closes_it(pair: PrivateLab) -> None:
    def freed(event: Event) -> bool:
        return isinstance(event, SocketClosed) and bool(event.peer_port)

    with Watch() as watch:
        watch.add(ClosedSocketObserver(pair, "right", {80}))
        client, server = connect(pair)
        port = client.getsockname()[1]
        client.send(b"hello")
        assert server.recv(5) == b"hello"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.close()
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        assert not watch.until(lambda: watch.saw(freed), 0.1)
        server.close()
        assert watch.until(lambda: watch.saw(freed), labs.DEADLINE_S)
        events, lost = watch.take()
    closed = [replace(event, time_ns=0) for event in events if isinstance(event, SocketClosed)]
    # The listener went first.
    assert [each.peer_port for each in closed] == [0, port]
    assert closed[1] == SocketClosed(0, "right", RIGHT, 80, LEFT, port, 5, 0, 0, 0, 0)
    assert lost == ((ObserverId(ObserverKind.CLOSED_SOCKETS, "right"), 0),)


@pytest.mark.kernel
def test_sockets_of_other_ports_are_not_told(pair: PrivateLab) -> None:
    with Watch() as watch:
        watch.add(ClosedSocketObserver(pair, "right", {81}))
        for end in connect(pair, 80):
            end.close()
        other = connect(pair, 81)
        for end in other:
            end.close()
        assert watch.until(
            lambda: watch.saw(lambda event: isinstance(event, SocketClosed) and event.peer_port > 0), labs.DEADLINE_S
        )
        events, _ = watch.take()
    assert {event.local_port for event in events if isinstance(event, SocketClosed)} == {81}
