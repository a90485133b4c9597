"""RSTs as the kernel tells of them: who sends one and why, and which socket accepts one."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import labs
import pytest
from pair import LEFT, PAIR, RIGHT, connect
from private_lab import PrivateLab

from netlab.errors import UnsupportedError
from netlab.observe.packets import PacketObserver
from netlab.observe.resets import ResetObserver
from netlab.observe.watch import Watch
from netlab.record.events import SYN, Direction, Packet, ResetKind, TcpReset, Tuple
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.resets import attach

LINGER_0 = struct.pack("ii", 1, 0)


@pytest.fixture
def pair(as_root: None) -> Iterator[PrivateLab]:
    """Two namespaces, left and right, joined by a veth pair; skips where the kernel can't tell of resets."""
    with PrivateLab(PAIR) as lab:
        try:
            ResetObserver(lab, ["left"], ()).close()
        except UnsupportedError as error:
            pytest.skip(error.message)
        yield lab


def resets(pair: PrivateLab, cause: Callable[[], None], count: int, ports: tuple[int, ...] = (80,)) -> list[TcpReset]:
    """What is told in consequence, by time and without it; accepted ones last."""
    with Watch() as watch:
        watch.add(ResetObserver(pair, ["left", "right"], ports))
        cause()
        assert watch.until(lambda: len(watch.gathered()) >= count, labs.DEADLINE_S)
        events, lost = watch.take()
    assert lost == ((ObserverId(ObserverKind.RESETS, ""), 0),)
    told = [replace(event, time_ns=0) for event in events if isinstance(event, TcpReset)]
    return sorted(told, key=lambda reset: reset.kind is ResetKind.ACCEPTED)


@pytest.mark.kernel
def test_a_connection_to_a_port_without_a_socket(pair: PrivateLab) -> None:
    def refused() -> None:
        with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
            client.connect((str(RIGHT), 80))

    sent, accepted = resets(pair, refused, 2)
    assert (sent.netns, sent.kind, sent.socket, sent.tcp_state) == ("right", ResetKind.SENT, None, "")
    assert sent.answered is not None
    assert (sent.answered.src, sent.answered.dport, sent.answered.flags) == (LEFT, 80, SYN)
    assert sent.reason in ("NO_SOCKET", "")
    own = Tuple(LEFT, sent.answered.sport, RIGHT, 80, 6)
    assert accepted == TcpReset(0, "left", ResetKind.ACCEPTED, "", own, "SYN_SENT")


@pytest.mark.kernel
def test_an_abort_and_whom_it_ends(pair: PrivateLab) -> None:
    port = 0

    def abort() -> None:
        nonlocal port
        client, server = connect(pair)
        port = client.getsockname()[1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.close()
        server.close()

    sent, accepted = resets(pair, abort, 2)
    own, peers = Tuple(LEFT, port, RIGHT, 80, 6), Tuple(RIGHT, 80, LEFT, port, 6)
    assert replace(sent, reason="") == TcpReset(0, "left", ResetKind.SENT, "", own, "CLOSE")
    assert sent.reason in ("TCP_STATE", "TCP_ABORT_ON_LINGER", "")
    assert replace(accepted, rcv_nxt=None) == TcpReset(0, "right", ResetKind.ACCEPTED, "", peers, "ESTABLISHED")


@pytest.mark.kernel
def test_the_resets_are_found_on_the_wire(pair: PrivateLab) -> None:
    with Watch() as watch:
        for end in ("left", "right"):
            watch.add(PacketObserver(pair, end, "eth0", {80}))
        watch.add(ResetObserver(pair, ["left", "right"], {80}))
        with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
            assert client.connect_ex((str(RIGHT), 80)) == errno.ECONNREFUSED
        client, server = connect(pair)
        client.send(b"hello")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.close()
        server.close()
        assert watch.until(lambda: sum(isinstance(event, TcpReset) for event in watch.gathered()) == 4, labs.DEADLINE_S)
        events, _ = watch.take()
    packets = [event for event in events if isinstance(event, Packet)]
    found = attach((event for event in events if isinstance(event, TcpReset)), packets)
    seen = {(reset.netns, reset.kind, packet and packet.netns, packet and packet.direction) for reset, packet in found}
    assert seen == {
        (netns, kind, netns, Direction.OUT if kind is ResetKind.SENT else Direction.IN)
        for netns in ("left", "right")
        for kind in ResetKind
    }
    accepted = next(each for each in found if each[0].netns == "right" and each[0].kind is ResetKind.ACCEPTED)
    assert accepted[1] is not None
    assert accepted[0].rcv_nxt == accepted[1].segment.seq


@pytest.mark.kernel
def test_a_socket_of_ipv6_with_a_client_of_ipv4(pair: PrivateLab) -> None:
    def abort() -> None:
        with pair.socket("right", socket.AF_INET6, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 80))
            listener.listen()
            with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect((str(RIGHT), 80))
                server, _ = listener.accept()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                server.close()

    sent, accepted = resets(pair, abort, 2)
    assert sent.socket is not None and accepted.socket is not None
    assert (sent.netns, sent.socket.src, sent.socket.sport, sent.socket.dst) == ("right", RIGHT, 80, LEFT)
    assert (accepted.netns, accepted.socket.src, accepted.socket.dst) == ("left", LEFT, RIGHT)


@pytest.mark.kernel
def test_over_ipv6(pair: PrivateLab) -> None:
    pair.run("left", *["ip", "address", "add", "fd00:9::1/64", "dev", "eth0", "nodad"])
    pair.run("right", *["ip", "address", "add", "fd00:9::2/64", "dev", "eth0", "nodad"])

    def refused() -> None:
        with pair.socket("left", socket.AF_INET6, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
            client.connect(("fd00:9::2", 80))

    sent, accepted = resets(pair, refused, 2)
    assert sent.answered is not None and accepted.socket is not None
    assert str(sent.answered.dst) == str(accepted.socket.dst) == "fd00:9::2"


@pytest.mark.kernel
def test_a_reset_that_a_rule_makes_is_accepted_and_sent_by_nobody(pair: PrivateLab) -> None:
    rule = "tcp dport 80 reject with tcp reset"
    pair.run("right", "nft", f"table ip t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}")

    def refused() -> None:
        with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
            client.connect((str(RIGHT), 80))

    (accepted,) = resets(pair, refused, 1)
    assert (accepted.netns, accepted.kind) == ("left", ResetKind.ACCEPTED)


@pytest.mark.kernel
def test_other_ports_are_not_told(pair: PrivateLab) -> None:
    def refused() -> None:
        for port in (81, 80):
            with pair.socket("left", socket.AF_INET, socket.SOCK_STREAM) as client:
                assert client.connect_ex((str(RIGHT), port)) != 0

    told = resets(pair, refused, 2)
    assert {reset.answered.dport for reset in told if reset.answered} == {80}
    assert len(told) == 2
